"""Which training rows moved the stances: every row's influence, by gradients, to first order.

The quantity that moves is the log-odds of a topic's or an axis' forced choice (``quantities``). A step of training
moves it by the gradient of the quantity times the step, and a step is a sum over the rows of its batch. So each row has
a share of its own (``influence``; TracIn: Pruthi et al. 2020, eq. 1), and the shares add up to the change, to first
order.
"""
