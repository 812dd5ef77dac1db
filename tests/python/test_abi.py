"""python_shim/ebbtide/_abi.py says the same as hooks/ebbtide.h."""

from __future__ import annotations

import ctypes
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _abi  # noqa: E402



def without_comments(path: str) -> str:
    return re.sub(r"/\*.*?\*/", "", (ROOT / "hooks" / path).read_text(), flags=re.DOTALL)


ENGINE = without_comments("ebbtide.h")
C_TYPES = {
    "size_t": ctypes.c_size_t,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "uint32_t": ctypes.c_uint32,
    "uint32_t*": ctypes.POINTER(ctypes.c_uint32),
    "const uint64_t*": ctypes.POINTER(ctypes.c_uint64),
    "uint8_t": ctypes.c_uint8,
    "int8_t": ctypes.c_int8,
    "char": ctypes.c_char,
    "ebbtide_status": ctypes.c_int,
    "ebbtide_mark_kind": ctypes.c_int,
    "const char*": ctypes.c_char_p,
    "char*": ctypes.c_char_p,
    "int*": ctypes.POINTER(ctypes.c_int),
    "ebbtide_stats*": ctypes.POINTER(_abi.StatsStruct),
    "ebbtide_trace_summary*": ctypes.POINTER(_abi.TraceSummaryStruct),
    "ebbtide_trace*": ctypes.c_void_p,
    "const ebbtide_trace*": ctypes.c_void_p,
    "ebbtide_trace**": ctypes.POINTER(ctypes.c_void_p),
    "ebbtide_trace_info*": ctypes.POINTER(_abi.TraceInfoStruct),
    "const ebbtide_event**": ctypes.POINTER(ctypes.POINTER(_abi.EventStruct)),
    "ebbtide_swap": ctypes.c_uint64,
    "ebbtide_swap*": ctypes.POINTER(ctypes.c_uint64),
    "ebbtide_swap_stats*": ctypes.POINTER(_abi.SwapStatsStruct),
    "uint64_t*": ctypes.POINTER(ctypes.c_uint64),
    "int64_t*": ctypes.POINTER(ctypes.c_int64),
    "const int64_t*": ctypes.POINTER(ctypes.c_int64),
    "void*": ctypes.c_void_p,
    "const ebbtide_swap_source*": ctypes.POINTER(_abi.SwapSourceStruct),
    "const void*": ctypes.c_void_p,
    "void": None,
    "double": ctypes.c_double,
    "const int64_t*": ctypes.POINTER(ctypes.c_int64),
    "size_t*": ctypes.POINTER(ctypes.c_size_t),
    "const char**": ctypes.POINTER(ctypes.c_char_p),
    "ebbtide_problem*": ctypes.c_void_p,
    "const ebbtide_problem*": ctypes.c_void_p,
    "ebbtide_problem**": ctypes.POINTER(ctypes.c_void_p),
    "ebbtide_arena*": ctypes.POINTER(_abi.ArenaStruct),
    "ebbtide_problem_info*": ctypes.POINTER(_abi.ProblemInfoStruct),
    "ebbtide_plan_stop": _abi.PlanStop,
    "ebbtide_plan_progress": _abi.PlanProgress,
    "const ebbtide_plan_options*": ctypes.POINTER(_abi.PlanOptionsStruct),
    "ebbtide_plan_result*": ctypes.POINTER(_abi.PlanResultStruct),
}


def enumerators(name: str) -> dict[str, int]:
    body = re.search(rf"typedef enum {name} \{{(.*?)\}} {name};", ENGINE, re.DOTALL)
    assert body, f"{name} is not in the header"
    return {key: int(value) for key, value in re.findall(r"(\w+)\s*=\s*(-?\d+)", body[1])}


def fields(name: str) -> list[tuple[str, object]]:
    body = re.search(rf"typedef struct {name} \{{(.*?)\}} {name};", ENGINE, re.DOTALL)
    assert body, f"{name} is not in the header"
    sizes = {"EBBTIDE_DIVERGENCE_COUNT": len(_abi.Divergence)}
    found: list[tuple[str, object]] = []
    for declaration in filter(None, (part.strip() for part in body[1].split(";"))):
        kind, names = re.fullmatch(r"((?:const )?\w+\*?) (.*)", declaration, re.DOTALL).groups()
        for field in names.split(","):
            match = re.fullmatch(r"\s*(\w+)(?:\[(\w+)\])?\s*", field)
            assert match, f"not understood: {declaration}"
            length = match[2] and (sizes.get(match[2]) or int(match[2]))
            found.append((match[1], C_TYPES[kind] * length if length else C_TYPES[kind]))
    return found


def functions(header: str) -> dict[str, tuple[object, list[object]]]:
    found: dict[str, tuple[object, list[object]]] = {}
    for result, name, arguments in re.findall(
        r"EBBTIDE_API ((?:const )?\w+\*?) (\w+)\(([^)]*)\);", header
    ):
        kinds = []
        for argument in (part.strip() for part in arguments.split(",")):
            if argument != "void":
                match = re.fullmatch(r"((?:const )?\w+\*{0,2}(?: const\*)?) ?\w+", argument)
                assert match, f"not understood: {argument}"
                kinds.append(C_TYPES[match[1]])
        found[name] = (C_TYPES[result.strip()], kinds)
    return found


@pytest.mark.parametrize(
    ("c_name", "python", "prefix"),
    [
        ("ebbtide_status", _abi.Status, "EBBTIDE_"),
        ("ebbtide_mark_kind", _abi.Mark, "EBBTIDE_MARK_"),
        ("ebbtide_divergence", _abi.Divergence, "EBBTIDE_DIVERGED_"),
        ("ebbtide_plan_state", _abi.PlanState, "EBBTIDE_PLAN_"),
    ],
)
def test_enumerators_have_the_headers_names_and_values(c_name, python, prefix):
    in_header = enumerators(c_name)
    in_header.pop("EBBTIDE_DIVERGENCE_COUNT", None)
    assert {prefix + item.name: item.value for item in python} == in_header


def test_a_mark_takes_as_many_extents_as_the_header_says():
    assert f"enum {{ EBBTIDE_MAX_EXTENTS = {_abi.MAX_EXTENTS} }}" in ENGINE


def test_there_are_as_many_divergences_as_the_header_counts():
    assert enumerators("ebbtide_divergence")["EBBTIDE_DIVERGENCE_COUNT"] == len(_abi.Divergence)


@pytest.mark.parametrize(
    ("c_name", "python"),
    [
        ("ebbtide_stats", _abi.StatsStruct),
        ("ebbtide_trace_summary", _abi.TraceSummaryStruct),
        ("ebbtide_event", _abi.EventStruct),
        ("ebbtide_trace_info", _abi.TraceInfoStruct),
        ("ebbtide_swap_source", _abi.SwapSourceStruct),
        ("ebbtide_swap_stats", _abi.SwapStatsStruct),
        ("ebbtide_plan_result", _abi.PlanResultStruct),
        ("ebbtide_plan_options", _abi.PlanOptionsStruct),
        ("ebbtide_problem_info", _abi.ProblemInfoStruct),
        ("ebbtide_arena", _abi.ArenaStruct),
    ],
)
def test_structures_have_the_headers_fields_in_order(c_name, python):
    assert list(python._fields_) == fields(c_name)


def test_functions_have_the_headers_signatures():
    declared = {
        **_abi.FUNCTIONS,
        **_abi.TRACE_FUNCTIONS,
        **_abi.SWAP_FUNCTIONS,
        **_abi.PLAN_FUNCTIONS,
    }
    assert len(declared) > 10
    assert declared == functions(ENGINE)


def test_every_statistic_reaches_the_python_dataclass():
    import dataclasses

    from ebbtide import Stats

    in_struct = [name for name, _ in _abi.StatsStruct._fields_ if name != "struct_size"]
    # What is offloaded is counted in Python.
    assert [field.name for field in dataclasses.fields(Stats)] == [*in_struct, "offload"]
