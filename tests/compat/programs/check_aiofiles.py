"""aiofiles: files through the loop's default executor."""

import asyncio
from pathlib import Path

import aiofiles
import aiofiles.os
import aiofiles.tempfile
import pytest


async def check_files_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with aiofiles.open(path, "w") as file:
        for number in range(200):
            await file.write(f"line {number}\n")
    assert (await aiofiles.os.stat(path)).st_size == path.stat().st_size
    async with aiofiles.open(path) as file:
        assert [line async for line in file] == [f"line {number}\n" for number in range(200)]

    async def one(number: int) -> bytes:
        async with aiofiles.open(path, "rb") as file:
            await file.seek(number)
            return await file.read(5)

    content = path.read_bytes()
    got = await asyncio.gather(*map(one, range(60)))
    assert got == [content[number : number + 5] for number in range(60)]
    await aiofiles.os.rename(path, tmp_path / "other")
    assert await aiofiles.os.listdir(tmp_path) == ["other"]


async def check_temporary_files_and_errors(tmp_path: Path) -> None:
    async with aiofiles.tempfile.TemporaryDirectory() as folder:
        async with aiofiles.tempfile.NamedTemporaryFile("wb", dir=folder) as file:
            await file.write(b"data")
        assert await aiofiles.os.path.isdir(folder)
    assert not await aiofiles.os.path.exists(folder)
    with pytest.raises(FileNotFoundError):
        await aiofiles.open(tmp_path / "nothing")
