"""Linting registrations: what Consul accepts and an operator will regret.

``definitions`` judges service definitions as they are rendered, ``outputs`` what running checks print. Both are pure:
facts in, findings out.
"""
