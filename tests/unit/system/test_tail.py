from __future__ import annotations

from pathlib import Path

from minimind.system.tail import LARGEST_TAIL, Tail, last_lines


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == ""
    path.write_text("one\n")
    assert tail.read() == "one\n"
    with path.open("a") as file:
        file.write("two\n")
    assert tail.read() == "two\n"
    assert tail.read() == ""
    assert Tail(path, 4).read() == "two\n"


def test_a_character_that_is_half_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = "损失 1.5\n".encode()
    tail, said = Tail(path), ""
    for end in range(len(data) + 1):
        path.write_bytes(data[:end])
        said += tail.read()
    assert said == "损失 1.5\n"


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\xffb\n")
    assert Tail(path).read() == "a�b\n"


def test_last_lines_of_a_file_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert last_lines(path, 2) == ""
    path.write_text("one\ntwo\nthree\n\n")
    assert last_lines(path, 2) == "two\nthree"
    path.write_text("x" * 3 * LARGEST_TAIL + "\nend\n")
    assert last_lines(path, 1) == "end"
    assert len(last_lines(path, 2)) <= LARGEST_TAIL
