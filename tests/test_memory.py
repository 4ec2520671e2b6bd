"""What is remembered, and what is forgotten."""

from __future__ import annotations

from cxr_reason.radiology.memory import Memory


def test_what_is_asked_for_is_kept_and_the_rest_forgotten() -> None:
    memory = Memory[int, str](3)
    assert memory[0] is None
    for number in range(3):
        assert memory.keep(number, f"value {number}") == f"value {number}"
    for number in range(3, 9):
        assert memory[0] == "value 0"  # asked for again and again
        memory.keep(number, f"value {number}")
        assert len(memory) <= 3
    assert (memory[8], memory[1], memory[2]) == ("value 8", None, None)
