"""Jobs as a LiveKit server would dispatch them."""

from __future__ import annotations

from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.protocol import agent, models


def job_info(number: int, *, metadata: str, agent_name: str = "", fake: bool = False) -> RunningJobInfo:
    """Return the job `job-NUMBER`, in a room of its own. `fake` marks a job that no server has dispatched."""
    return RunningJobInfo(
        accept_arguments=JobAcceptArguments(identity="agent", name="", metadata=""),
        job=agent.Job(
            id=f"job-{number}",
            room=models.Room(name=f"room-{number}", sid=f"room-{number}"),
            type=agent.JobType.JT_ROOM,
            metadata=metadata,
            agent_name=agent_name,
        ),
        url="",
        token="",
        worker_id="worker",
        fake_job=fake,
    )
