/* One job in the ledger and everything that may happen to it, small enough to be searched whole: `docs/job-states.md`
 * with two workers, an operator, a broker that loses and doubles, and leases that run out under living workers. Each
 * `d_step` is one transaction, and names the statement it stands for, below `orchestrator`. Other jobs in the same
 * transaction change nothing for this one: a statement over many takes each by its own state and number.
 *
 * Left out, as it adds nothing: a transaction that is rolled back (nothing happened), a kill between a commit and the
 * message that follows it (that message is lost), a pause (everybody may stand still as long as they like), the same
 * worker claiming again (the fence is a number, so the two workers may as well be two runs in hand of one).
 *
 * Assumed of the world, by `pan -f` and by `faults`: whoever can go on does so some day, and what costs a job nothing
 * (an outage, a planned stop, a lost message, a lease that runs out under a living worker, a commit whose reply is
 * lost) does not go on for ever. Workers may be killed without end: that the ledger counts itself.
 */
#ifndef FAULTS
#define FAULTS      2
#endif
#define MAX_CRASHES 2       /* lifecycle.MAX_CRASHES is 5; each more only adds a run */
#define MAX_COPIES  2
#define MAX_RUNS    (1 + FAULTS + MAX_CRASHES)

mtype = { absent, queued, running, parked, replaying, answered, succeeded, failed, cancelled, discarded, quarantined,
        cancelling, done };

mtype state = absent;       /* jobs.state; `absent`: no row yet */
byte  latest;               /* jobs.run */
byte  crash_count;          /* jobs.crash_count */
byte  lease;                /* leases.run; 0: no row */
bool  lapsed;               /* leases.lease_until < now() */
bool  expired[MAX_RUNS + 1];/* runs.outcome = 'expired' */
byte  results;              /* rows in results */
mtype request = absent;     /* failed_requests.state; `absent`: never parked */
mtype batch = absent;       /* batches.state of the batch that the job is a line of; `running`: or still `importing` */
byte  copies;               /* of the job's message, on the broker */
byte  held[2];              /* the run that each worker believes to have; 0: none */
byte  faults = FAULTS;      /* that the world has left */

#define is_final   (state == succeeded || state == failed || state == cancelled || state == discarded || state == quarantined)
#define is_held    (lease != 0 && (held[0] == lease || held[1] == lease))
#define owns(mine) (state == running && latest == mine)

inline move_to(next) { assert(!is_final); state = next }
inline answer()      { results++; assert(results == 1) }
inline send()        { if :: copies < MAX_COPIES -> copies++ :: else fi }
inline settle(how)   { if :: request == parked || request == replaying -> request = how :: else fi }
inline begin_run(me) { move_to(running); latest++; lease = latest; lapsed = false; held[me] = latest }
inline end_run()     { lease = 0; lapsed = false }
inline count_crash() {
    crash_count++;
    end_run();
    if
    :: crash_count >= MAX_CRASHES -> move_to(quarantined); answer(); settle(discarded)
    :: else -> move_to(queued); send()
    fi
}

/* A job comes over HTTP, as a row and then a message; over Celery, as a message alone; or in a batch, as a row. */
active proctype Producer()
{
    if
    :: d_step { state == absent -> move_to(queued); send() }                    /* jobs.store._ADD */
    :: send()
    :: batch = running;                                                         /* batches.store._ADD */
       if
       :: d_step { state == absent && batch == running -> move_to(queued) }     /* batches.store._TAKE_IN */
                                                                                /* batches.retrying._COPY */
       :: d_step { state == absent && batch == running -> move_to(failed); answer() } /* batches.store._REJECT */
       :: skip
       fi
    fi
}

proctype Worker(byte me)
{
    mtype outcome;
end:
    do
    :: d_step { copies > 0 -> copies-- };
       d_step {
           if
           :: state == absent -> begin_run(me)                                  /* jobs.claims._TAKE_IN */
           :: state == queued -> begin_run(me)                                  /* jobs.claims._CLAIM */
           :: else
           fi
       };
       if
       :: held[me] == 0 -> goto end                                             /* somebody else's, or over */
       :: held[me] != 0 -> outcome = succeeded
       :: held[me] != 0 -> outcome = failed
       :: d_step { held[me] != 0 && faults > 0 -> faults--; outcome = parked }  /* an outage */
       :: d_step { held[me] != 0 && faults > 0 -> faults--; outcome = queued }  /* a planned stop: handed back */
       :: held[me] != 0 -> outcome = quarantined                                /* its own process died: a crash */
       :: held[me] != 0 -> held[me] = 0; goto end                               /* kill -9 */
       fi;
       do
       :: d_step {                                                              /* jobs.endings._RECORD */
              if
              :: owns(held[me]) && outcome == quarantined -> count_crash()      /* jobs.crashes._RECORD */
              :: owns(held[me]) && outcome != quarantined ->
                 assert(held[me] == lease);
                 move_to(outcome);
                 end_run();
                 if
                 :: outcome == succeeded -> answer(); settle(answered)          /* failed_requests.store._END */
                 :: outcome == failed -> answer(); settle(discarded)
                 :: outcome == parked -> request = parked                       /* failed_requests.store._PARK */
                 :: outcome == queued -> send()
                 fi
              :: !owns(held[me]) && expired[held[me]] && outcome != quarantined ->
                 expired[held[me]] = false;                                     /* late, so it was no crash */
                 if :: !is_final -> crash_count-- :: else fi
              :: else
              fi
          };
          if
          :: held[me] = 0; break
          :: d_step { faults > 0 -> faults-- }                                  /* reply lost: `patiently` repeats */
          fi
       od
    od
}

/* None of this ever has to happen. */
active proctype World()
{
end:
    do
    :: d_step { copies > 0 && faults > 0 -> faults--; copies-- }
    :: d_step { copies > 0 && copies < MAX_COPIES -> copies++ }
    :: d_step { is_held && !lapsed && faults > 0 -> faults--; lapsed = true }
    :: d_step { is_held && lapsed -> lapsed = false }                           /* jobs.sweeps._RENEW */
    :: d_step { lease != 0 && !is_held && !lapsed -> lapsed = true }            /* jobs.sweeps._END */
    od
}

/* As many beats as you like: each of these finds nothing where another was faster. */
active proctype Beat()
{
end:
    do
    :: d_step {                                                                 /* jobs.sweeps._EXPIRE */
           lease != 0 && (lapsed || !is_held) ->
           expired[lease] = true;
           count_crash()
       }
    :: d_step {                                                                 /* jobs.sweeps._UNDELIVERED */
           state == queued && batch == absent && copies < MAX_COPIES -> send()
       }
    :: d_step {                      /* batches.feeding._WAITING_JOBS: in a slice, and again if that was lost */
           state == queued && batch == running && copies == 0 -> send()
       }
    :: d_step { batch == running && is_final -> batch = done }                  /* batches.feeding._NOTE */
    :: d_step {                                        /* batches.cancelling._CANCEL, and with the last line _END */
           batch == cancelling ->
           if
           :: state != absent && !is_final ->
              move_to(cancelled);
              end_run();
              answer();
              settle(discarded)
           :: else
           fi;
           batch = cancelled
       }
    :: d_step {              /* failed_requests.replay._RELEASE, and by hand failed_requests.replay._SEND_BACK */
           request == parked && state == parked ->
           request = replaying;
           move_to(queued);
           send()
       }
    od
}

active proctype Operator()
{
    do
    :: d_step {                                                                 /* jobs.endings._CANCEL */
           state != absent && !is_final -> move_to(cancelled); end_run(); answer(); settle(discarded)
       }
    :: d_step {                                                                 /* failed_requests.discards._DISCARD_JOBS */
           state == parked -> move_to(discarded); answer(); settle(discarded)
       }
    :: d_step { batch == running -> batch = cancelling }                        /* batches.store._BEGIN_CANCEL */
    :: break
    od
}

init { atomic { run Worker(0); run Worker(1) } }

/* Whatever has its row comes to an end; that it stays there is `move_to`'s to see. */
ltl ends { [] (state != absent -> <> is_final) }

/* At every moment the tables agree. */
ltl agrees {
    [] (   (is_final == (results == 1))
        && ((state == running) == (lease != 0))
        && ((state == parked) == (request == parked))
        && !(is_final && request == replaying)
        && (is_final || state == absent || batch == absent || batch == running || batch == cancelling)
        && crash_count <= MAX_CRASHES)
}
