"""Automatic recovery: from what is seen to fail to what is done about it.

The rules, each in a module of its own:

``failures``     whose fault it is. A process that ended is a fact that its node agent reports. A check that Consul
                 calls critical is an opinion: the observer can be wrong (its agent restarted, its server without
                 leader, one slow interval), so nothing is done before the node agent has confirmed it.
``causes``       of a set of failing services, only those are recovered whose own dependencies are sound. The others
                 wait and are looked at again.
``policy``       what a service's spec and the settings say together.
``treatment``    what is done about one failing service: the budget, the delays, giving up (invariant I5).
``flapping``, ``quarantine``
                 what comes and goes too often is quarantined, and released when it has been quiet.
``brake``        when too much fails at once, the cause is not in the services, and restarting them makes it worse.
``revival``      what is wanted and was never started, because what it needs had failed, is started when that is back.
``heal``         the order of all this in one turn.

A hold stops all of it in its scope (invariant I6). The state is in the incident documents (``core.incident``) and
nowhere else: a new leader finds them and goes on.
"""
