"""Processes that train: started by the launcher, each pulling trials from one study.

Workers pull networks, because a batch that is pushed waits for its slowest network. All that is known stands in the
study, and every worker takes its turn at it under a lock that ends with its process. So whoever dies leaves something
that the next one can mend: a proposal without a claim is dropped, a claim that falls silent is given once more, a
trained network is found in the records. Optuna's heartbeat needs a database and calls back once. Ours is a number in
the trial that changes. Each observer judges it by a clock of its own, so it works in the journal file too, and
machines' clocks need not agree.
"""
