// Handles that upstream gives to other processes for stretches of an expandable segment, as one.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace ebbtide {

// Of stretches that follow one another in one segment, the handle that upstream would give for all of them. None where they
// are not of a form that is known: two bytes (version 2 of torch 2.11 or 3 of 2.15; kind), a process's number, the size of the
// segment's pages, their count, in version 3 the kind of the descriptors, and a file descriptor for each page.
// `page_counts`: of each stretch, which the handles must agree with.
std::optional<std::string> join_shared_handles(const std::vector<std::string>& handles, std::size_t page,
                                               const std::vector<std::size_t>& page_counts);

}  // namespace ebbtide
