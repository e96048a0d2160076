"""The full-cycle drill: five phases against the running stack, each line a check that can fail.

Each phase gathers evidence, by doing something to the stack and by asking those who witnessed it, and then judges it.
Judging is pure: the same evidence gives the same lines, so a test can plant any fault that there is.
"""
