"""Markets whose best policy is known, so that a learner gets a mark out of 100 and not an impression.

At every decision a position of 0 or 1 is chosen; it earns what the market returns until the next decision, less a cost
a side. In all of these markets the expected return depends on a state that no position moves, so the best average
reward is found by dynamic programming over (position, state). Values are in hundredths of a percent (_bps) a decision.
"""
