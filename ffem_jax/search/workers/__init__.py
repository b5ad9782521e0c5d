"""Processes that train: started by the launcher, each pulling trials from one study."""
