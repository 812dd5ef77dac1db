#include "dryrun/core/settings.h"

#include <array>
#include <charconv>
#include <cstdlib>

namespace ebbtide::dryrun {

namespace {

struct Unit {
  std::string_view name;
  double bytes;
};

constexpr std::array<Unit, 14> kUnits{{{"", 1.0},
                                       {"B", 1.0},
                                       {"KB", 1e3},
                                       {"MB", 1e6},
                                       {"GB", 1e9},
                                       {"TB", 1e12},
                                       {"K", 1024.0},
                                       {"M", 1048576.0},
                                       {"G", 1073741824.0},
                                       {"KiB", 1024.0},
                                       {"MiB", 1048576.0},
                                       {"GiB", 1073741824.0},
                                       {"T", 1099511627776.0},
                                       {"TiB", 1099511627776.0}}};

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? nullptr : value;
}

// As much as a number without a unit must be, or its unit was forgotten.
constexpr std::int64_t kLeastBare = std::int64_t{64} << 20, kPage = 4096;

bool has_no_unit(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789.") == std::string_view::npos;
}

Status read_size(const char* name, Bytes& size, std::int64_t least_bare, const char* meant) {
  const char* text = variable(name);
  if (text == nullptr) return Nothing{};
  Result<Bytes> parsed = parse_size(text);
  if (!parsed)
    return Error{ErrorCode::kInvalidArgument,
                 std::string(name) + "=" + text + ": " + parsed.error().message};
  if (has_no_unit(text) && parsed.value().value < least_bare) {
    return Error{ErrorCode::kInvalidArgument, std::string(name) + "=" + text + ": that is " + text +
                                                  " bytes; did you mean " + text + meant + "?"};
  }
  size = parsed.value();
  return Nothing{};
}

}  // namespace

Result<Bytes> parse_size(std::string_view text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, code] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (code == std::errc{} && number > 0) {
    std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
    while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
    for (const Unit& unit : kUnits) {
      const double bytes = number * unit.bytes;
      if (suffix == unit.name && bytes >= 1 && bytes < 1e15)
        return Bytes{static_cast<std::int64_t>(bytes)};
    }
  }
  return Error{ErrorCode::kInvalidArgument,
               "not a size; write bytes with a unit, e.g. 141GB, 80GiB or 512MiB"};
}

Result<Settings> read_settings() {
  Settings settings;
  const char* device = variable("EBBTIDE_DRYRUN_DEVICE");
  const std::string option = device == nullptr ? "h200" : device;
  Result<DeviceModel> model = load_device_model(option, device_folder());
  if (!model) {
    return Error{ErrorCode::kInvalidArgument,
                 "EBBTIDE_DRYRUN_DEVICE=" + option + ": " + model.error().message};
  }
  settings.model = std::move(model.value());
  settings.capacity = settings.model.memory;
  Status status = read_size("EBBTIDE_DRYRUN_CAPACITY", settings.capacity, kLeastBare, "GiB");
  if (status) status = read_size("EBBTIDE_DRYRUN_COMPUTE_LIMIT", settings.compute_limit, kPage, "MiB");
  if (status) status = read_size("EBBTIDE_DRYRUN_PINNED", settings.pinnable, kLeastBare, "GiB");
  if (!status) return status.error();
  if (const char* count = variable("EBBTIDE_DRYRUN_COUNT")) {
    settings.device_count = std::atoi(count);
    if (settings.device_count < 1 || settings.device_count > kMaxDevices) {
      return Error{ErrorCode::kInvalidArgument,
                   std::string("EBBTIDE_DRYRUN_COUNT=") + count + ": allowed is 1 to 16"};
    }
  }
  if (const char* nth = variable("EBBTIDE_DRYRUN_FAIL")) {
    settings.failing_call = std::atoll(nth);
    if (settings.failing_call < 1) {
      return Error{ErrorCode::kInvalidArgument,
                   std::string("EBBTIDE_DRYRUN_FAIL=") + nth +
                       ": write the number of a call, from 1 on"};
    }
  }
  if (const char* ranks = variable("EBBTIDE_DRYRUN_RANKS")) {
    settings.ranks = std::atoi(ranks);
    if (settings.ranks < 1) {
      return Error{ErrorCode::kInvalidArgument,
                   std::string("EBBTIDE_DRYRUN_RANKS=") + ranks + ": write a number, from 1 on"};
    }
  }
  if (const char* steps = variable("EBBTIDE_DRYRUN_STEPS")) {
    settings.last_step = std::atoi(steps);
    if (settings.last_step < 1) {
      return Error{ErrorCode::kInvalidArgument,
                   std::string("EBBTIDE_DRYRUN_STEPS=") + steps + ": write a number, from 1 on"};
    }
  }
  if (const char* typical = variable("EBBTIDE_DRYRUN_TYPICAL")) {
    Result<TypicalValues> parsed = parse_typical(typical);
    if (!parsed) {
      return Error{ErrorCode::kInvalidArgument,
                   std::string("EBBTIDE_DRYRUN_TYPICAL=") + typical + ": " + parsed.error().message};
    }
    settings.typical = parsed.value();
  }
  if (const char* bare = variable("EBBTIDE_DRYRUN_BARE")) {
    settings.is_bare = std::string_view(bare) == "1";
    if (!settings.is_bare && std::string_view(bare) != "0") {
      return Error{ErrorCode::kInvalidArgument,
                   std::string("EBBTIDE_DRYRUN_BARE=") + bare + ": write 0 or 1"};
    }
  }
  if (const char* path = variable("EBBTIDE_DRYRUN_TIMELINE")) settings.timeline_path = path;
  if (const char* path = variable("EBBTIDE_DRYRUN_REPORT")) settings.report_path = path;
  return settings;
}

}  // namespace ebbtide::dryrun
