"""People's photographs to aligned faces: find the face, turn and scale it by the eyes, cut it as training does."""
