"""Ending tasks."""

import asyncio

import pytest

from anabranch.core.tasks import end_task


async def test_a_task_is_ended_after_its_clean_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await end_task(task)
    assert (cleaned, task.cancelled()) == ([True], True)
    await end_task(task)


async def test_who_is_cancelled_while_it_waits_does_not_run_on() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            cleaned.append(True)
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end_task(task))
    await asyncio.sleep(0.01)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert not task.done(), "its clean-up goes on"
    await end_task(task)
    assert cleaned == [True]


async def test_an_error_of_the_task_is_told() -> None:
    async def work() -> None:
        raise ValueError("broken")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="broken"):
        await end_task(task)
