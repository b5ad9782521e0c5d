"""Processes that train: started by the launcher, each pulling trials from one study.

Workers pull networks, because a batch that is pushed waits for its slowest network. All state is in the study, which
workers change one at a time under a lock that ends with the process. So the next worker can repair what a dead one
leaves: a proposal without a claim is dropped, a silent claim is assigned once more, a trained network is found in the
records. Optuna's heartbeat needs a database and calls back once. Ours is a changing number in the trial. Each observer
times it by its own clock, so it works in the journal file too, and machines' clocks need not agree.
"""
