/* Leadership, fence and adoption: what docs/architecture.md says of invariant I3 and of resume, small enough to be
 * checked exhaustively with spin. Two orchestrators, one node agent, one instance, one operation that starts it.
 *
 * Consul is the global state; each of its transactions is one atomic step, and everything between two of them can be
 * arbitrarily late: spin tries every order, so pauses, deaths and late writes need no words of their own. A session
 * can end at any moment (a TTL, proof of death, a partition) as long as LOSSES lasts.
 *
 *   spin -a leadership.pml && cc -O2 -o pan pan.c && ./pan -a -f -m100000
 *
 * NO_FENCE, NO_ADOPTION and NO_GENERATION leave out one rule each, and each has to be found out.
 */

#ifndef LOSSES
#define LOSSES 3
#endif
#define NOBODY 0
#define WAITING 0
#define RUNNING 1
#define SUCCEEDED 2

byte holder = NOBODY;   /* of the leader lock: the session, which is the pid of an orchestrator */
byte raft = 0;          /* Consul's raft index; an epoch is its value when the lock was taken */
byte losses = LOSSES;

byte desired_epoch = 0; /* desired/<node> */
byte desired_generation = 0;
bool desired_by_operation = false;
byte step = WAITING;    /* of the operation */

byte obeyed_epoch = 0;  /* what the node agent keeps in observed/<node> */
byte observed_generation = 0;
bool observed_ready = false;

byte starts = 0;        /* of the instance, on its machine */

#ifdef NO_FENCE
#define FENCE true
#else
#define FENCE (holder == _pid)
#endif

/* A write of a leader: refused as a whole unless its session has the lock. */
inline fenced_order(generation)
{
    atomic {
        if
        :: FENCE ->
            assert(holder == _pid);                     /* I3: no write of a deposed leader takes effect */
            raft++;
            desired_epoch = epoch;
            desired_generation = generation;
            desired_by_operation = true;
            step = RUNNING
        :: else -> leading = false
        fi
    }
}

inline fenced_end()
{
    atomic {
        if
        :: FENCE -> assert(holder == _pid); raft++; step = SUCCEEDED
        :: else -> leading = false
        fi
    }
}

active [2] proctype orchestrator()
{
    byte epoch, seen_generation, seen_step, seen_observed;
    bool leading, seen_order, seen_ready;

end:
    do
    :: atomic { holder == NOBODY && step != SUCCEEDED -> holder = _pid; raft++; epoch = raft; leading = true };
        do
        :: leading ->
            /* a look: reads of several keys, between which anything may happen */
            seen_generation = desired_generation;
            seen_order = desired_by_operation;
            seen_step = step;
            atomic { seen_observed = observed_generation; seen_ready = observed_ready };
            if
            :: seen_step == SUCCEEDED -> break
#ifdef NO_ADOPTION
            :: seen_step == WAITING || (seen_step == RUNNING && !seen_ready && epoch != desired_epoch) ->
                fenced_order(seen_generation + 1)
#else
            :: seen_step == WAITING && !seen_order -> fenced_order(seen_generation + 1)
            :: seen_step == WAITING && seen_order -> skip      /* adopted: written with the order, in one transaction */
#endif
            :: seen_step == RUNNING && seen_ready && seen_observed >= seen_generation -> fenced_end()
            :: else -> /* wait for the agent, or for the loss of the lock */
                if
                :: observed_ready != seen_ready
                :: holder != _pid -> leading = false
                :: step != seen_step
                fi
            fi
        :: !leading -> break
        od;
        atomic { if :: holder == _pid -> holder = NOBODY :: else fi }
    od
}

#ifdef NO_GENERATION
#define NEWS (desired_generation > 0 && starts < 3)
#else
#define NEWS (desired_generation > observed_generation)
#endif

active proctype agent()
{
    byte order_epoch, order_generation;

end:
    do
    :: atomic { NEWS -> order_epoch = desired_epoch; order_generation = desired_generation };
        /* the agent may be late, or paused, here */
        if
        :: order_epoch >= obeyed_epoch ->
            obeyed_epoch = order_epoch;
            starts++;
            assert(starts <= 1);                        /* nothing is started twice */
            atomic { observed_generation = order_generation; observed_ready = true }
        :: else
        fi
    od
}

active proctype fate()
{
end:
    do
    :: atomic { losses > 0 && holder != NOBODY -> holder = NOBODY; losses-- }
    od
}

/* I4: the operation ends, whatever crashes, once sessions are left alone. */
ltl every_operation_ends { <> (step == SUCCEEDED) }
