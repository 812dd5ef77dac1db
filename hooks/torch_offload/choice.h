// What share of each layer's activations is swapped, under the limits of link and host; and the
// search for the share with the fastest steps. The same as in Python
// (python_shim/ebbtide/_offload/_choice.py).
#pragma once

#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace ebbtide::offload {

// Shares are multiples of 1/64, so that they do not follow noise.
constexpr int kShareParts = 64;

// Bytes of one call of a layer.
struct LayerCost {
  double always = 0;  // swapped in any case: its input, and attention's output
  double rest = 0;    // swapped by a share, computed again otherwise
};

struct Limits {
  double link = 0;  // bytes that are copied during one layer's forward
  double host = 0;  // bytes of pinned memory, for all layers
};

struct Shares {
  std::vector<double> of_layer;
  std::string limit;  // "link" or "host": what keeps them from being larger; "": nothing
};

// MEMO's closed form (arXiv 2407.12117, 4.1): the largest share that all layers can have.
Shares memo_shares(const std::vector<LayerCost>& layers, const Limits& limits);
// Each layer's own, so that together they compute the fewest bytes again.
Shares layer_shares(const std::vector<LayerCost>& layers, const Limits& limits);

// The largest part, 0 to 1, of shares for which a device has `room`, all in bytes. With the whole
// shares one layer more has `moving` on its way between device and host while the next one runs, and
// the layers that stay keep `staying` more, but never more than `staying_at_most`.
double device_part(double room, double moving, double staying,
                   double staying_at_most = std::numeric_limits<double>::infinity());

// The shares in whole pieces of each layer, of which there are so many; 0: the share stays as it is.
// Never more: up to any layer at most as much as the shares say, and nowhere much less. What was no whole
// piece of one layer `is_carried` to the next, so that a layer may have one piece more than its share,
// else is lost.
std::vector<double> in_pieces(const std::vector<double>& shares, const std::vector<std::size_t>& pieces,
                              bool is_carried);

// What part of the largest share has the shortest measured step. Steps get shorter with it while
// copies hide, and longer once they do not: the time has one minimum, and the widest interval
// beside the best part so far is halved. At most kMostProbes parts are tried. A part may be refused,
// because a plan of its steps' addresses needs more than the device has: more is on its way there the
// larger the part, so no larger one is taken either. One whose steps wait for copies for too long swaps more
// than the link hides, and is not taken, though its steps may be the shortest. Not thread-safe.
class AlphaSearch {
 public:
  static constexpr std::size_t kMostProbes = 6;

  // A step at that part took `seconds`, in `waited` of which it stood still for copies.
  void note(double part, double seconds, double waited = 0);
  void refuse(double part);
  // What was measured, as parts of a larger share: `ratio`, below 1, is the part of it that was all.
  AlphaSearch scaled(double ratio) const;
  // Whether it was a refusal that kept the best part from being larger.
  bool is_bounded() const;
  // Whether a larger part was found to wait for too long.
  bool is_late_beyond() const;
  // Before anything was noted 1, or half of what was refused.
  // The smallest part whose step is as good as the shortest, to half a percent: it waits less for
  // copies, and takes less of the host's memory.
  double best() const;
  // The part to try next. None: best() is the answer.
  std::optional<double> following() const;

 private:
  // Of those that do not wait for too long; if all of them do, of all.
  int fastest() const;
  bool is_allowed(int share) const;
  bool is_worth_halving(int low, int high) const;

  std::map<int, double> seconds_;  // by part, in 64ths; of those that were not refused
  int refused_ = kShareParts + 1;  // the smallest part that was
  std::set<int> tried_;
  std::set<int> late_;  // parts whose steps wait for too long
};

}  // namespace ebbtide::offload
