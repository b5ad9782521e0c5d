"""Architecture search: the space, the study that workers share, the samplers, the workers."""
