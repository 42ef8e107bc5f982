"""The main job, end to end: a foreign producer enqueues `handle_message` and gets the answer by its id."""

import subprocess
import sys

from orchestrator.outcomes import POLITE_REPLY
from tests.acceptance.yard import Yard, build_message, wait_until

FOREIGN = """
import sys
for ours in ("orchestrator", "llm_pool", "shared"):
    sys.modules[ours] = None  # not installed here
from celery import Celery
app = Celery(broker=sys.argv[1], backend=sys.argv[2])
if sys.argv[1].startswith("amqp"):
    app.conf.task_default_queue_type = "quorum"
"""
WAITING_PROGRAM = FOREIGN + "app.AsyncResult(sys.argv[3]).get(timeout=0.5)"
ASKING_PROGRAM = (
    FOREIGN
    + """
message = {"id": "m-1", "channel": "slack", "sender": "U1", "content": "hello", "timestamp": "2026-01-01T00:00:00Z"}
print(app.send_task("handle_message", [message]).get(timeout=30)["content"])
"""
)


def run_foreign(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program that has only Celery."""
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)


def test_a_foreign_producer_that_has_only_celery_gets_its_answer(either_yard: Yard) -> None:
    either_yard.start_worker()
    done = run_foreign(ASKING_PROGRAM, either_yard.broker_url, either_yard.redis_url)
    assert done.stdout.strip() == "answer to hello", done.stderr


def test_a_message_sent_again_is_one_job_one_call_and_one_answer_for_all(yard: Yard) -> None:
    yard.model.delay_seconds = 0.5
    yard.start_worker()
    sent = yard.send(["same"] * 10)
    answers = [result.get(timeout=30) for result in sent]
    again = yard.send(["same"])[0].get(timeout=30)
    assert [answer["job_id"] for answer in answers] == [again["job_id"]] * 10
    assert yard.model.calls == {"same": 1}
    assert yard.count("select count(*) from jobs") == 1


def test_an_outage_parks_jobs_tells_their_ids_and_they_are_answered_when_a_provider_is_back(yard: Yard) -> None:
    yard.model.is_down = True
    yard.start_worker()
    yard.start_beat()
    sent = yard.send([f"q{n}" for n in range(20)])
    wait_until(lambda: all(result.state == "PARKED" for result in sent), seconds=20)
    waiting = sent[0].meta["result"]
    assert waiting["content"] == POLITE_REPLY
    assert yard.count("select count(*) from failed_requests where id::text = $1", waiting["failed_request_id"]) == 1
    assert "TimeoutError" in run_foreign(WAITING_PROGRAM, yard.broker_url, yard.redis_url, sent[0].task_id).stderr

    yard.model.is_down = False
    assert {result.get(timeout=60)["state"] for result in sent} == {"succeeded"}
    assert set(yard.model.calls.values()) == {1}
    assert yard.count("select count(*) from failed_requests where state = 'answered'") == 20
    assert yard.count("select count(*) from results") == 20
    assert yard.count("select max(crash_count) from jobs") == 0


def test_bad_messages_fail_with_the_fields_name_and_leave_evidence(yard: Yard) -> None:
    yard.start_worker()
    bad = {
        "channel": build_message("a", channel="fax"),
        "content": build_message("x" * 10_000_000),
        "sender": build_message("c", sender="\ud800"),
        "id": build_message("d", id="nul\x00"),
        "tenant_id": build_message("e", tenant_id="nobody"),
        "agent_id": build_message("f", agent_id="nobody"),
        "model": build_message("g", model="nothing"),
        "message": "not a dict",
    }
    for field, reply in zip(bad, yard.send_messages(list(bad.values())), strict=True):
        error = reply.get(timeout=30)
        assert error["exc_type"] in {"MessageRejectedError", "JobFailedError"}
        assert f"{field}: " in error["exc_message"][0]
    stored = yard.rows("select error ->> 'field' from rejected_messages")
    failed = yard.rows("select body -> 'error' ->> 'field' from results")
    assert sorted([*(row[0] for row in stored), *(row[0] for row in failed)]) == sorted(bad)
    assert yard.send(["still alive"])[0].get(timeout=30)["state"] == "succeeded"
