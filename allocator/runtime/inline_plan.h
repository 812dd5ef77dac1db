// A plan made on the training thread, for an input that outgrew every plan: one first-fit pass.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "allocator/runtime/arena.h"
#include "allocator/runtime/matcher.h"
#include "allocator/runtime/program_book.h"
#include "allocator/runtime/successors.h"

namespace ebbtide {

struct InlinePlan {
  std::vector<Offset> offsets;  // per node
  std::vector<Bytes> slots;     // per node: the sizes expected of this round
  Bytes height;
};

// Places node `current` and what is still to come in this round of `program`, with the sizes that `matcher` expects, in
// the placement order of the program's last solution, around everything live in the arena, and with the `successors` on
// top where the arena grows. Not validated as a whole: what is alive is checked at every request anyway.
// Cost: one pass of place(), about a millisecond per thousand nodes; where the arena is too low for that plan, up to
// `improvement_steps` (see SolveOptions) on better ones, twice.
InlinePlan make_inline_plan(const ProgramBook& book, const Program& program, const Matcher& matcher,
                            std::uint32_t current, const Arena& arena, Bytes alignment,
                            const Successors& successors, std::int64_t improvement_steps);

// How high the arena would be if node `current` and those to come, of the sizes that `matcher` expects, went into the tightest gaps
// one after the other. Cost: for each node, linear in what is alive then.
Bytes height_in_gaps(const Program& program, const Matcher& matcher, std::uint32_t current, const Arena& arena, Bytes alignment);

// The most that node `current` and those to come will need at once whose places, `places` by node, are too small or will still be taken by
// what is alive in the arena: so much would have to be somewhere else. Cost: like make_inline_plan's pass.
Bytes load_without_place(const Program& program, const Matcher& matcher, std::uint32_t current, const Arena& arena,
                         const std::vector<Home>& places);

}  // namespace ebbtide
