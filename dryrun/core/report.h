// The JSON report of a run, and the lines at exit.
#pragma once

#include <string>

#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

// Registers the writing at exit, for this process and not for children forked from it. Until then the report at
// `path` is empty.
void write_report_at_exit(const std::string& path);

// Writes what is written at exit and ends the process with status 0, from any thread.
EBBTIDE_DRYRUN_API [[noreturn]] void end_program();

// What end_program calls before the process is gone, since no handler at exit runs then; nullptr: nothing.
using Ending = void (*)();
void set_ending(Ending call);

// What the torch companion adds: one JSON object, e.g. torch's own peaks. Called once, at exit.
EBBTIDE_DRYRUN_API void set_report_section(std::string (*make)());

// The whole report as JSON.
std::string make_report();

}  // namespace ebbtide::dryrun
