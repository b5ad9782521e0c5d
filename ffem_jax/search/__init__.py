"""Architecture search: the space, the samplers, the study that workers share, and the workers."""
