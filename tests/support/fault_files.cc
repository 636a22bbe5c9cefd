#include "tests/support/fault_files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <set>
#include <utility>

#include "base/check.h"

namespace support {

using base::ByteView;
using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr uint64_t kReportedCapacityBytes = base::kTiB;  // where there is no limit

// "/a/b": one leading slash, no trailing one, no "." and no empty parts.
std::string Normal(const std::string& path) {
  std::string normal;
  for (size_t begin = 0; begin < path.size();) {
    size_t end = std::min(path.find('/', begin), path.size());
    std::string part = path.substr(begin, end - begin);
    CHECK(part != "..");
    if (!part.empty() && part != ".") normal += "/" + part;
    begin = end + 1;
  }
  return normal.empty() ? "/" : normal;
}

std::string ParentOf(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool IsIn(const std::string& path, const std::string& dir) {
  return path != "/" && ParentOf(path) == dir;
}

// A write, or (text empty, is_truncate) a change of length.
struct DataChange {
  uint64_t offset = 0;
  std::string text;
  bool is_truncate = false;
};

void Apply(const DataChange& change, std::string& data) {
  if (change.is_truncate) {
    data.resize(change.offset);
    return;
  }
  uint64_t end = change.offset + change.text.size();
  if (data.size() < end) data.resize(end);
  std::copy(change.text.begin(), change.text.end(),
            data.begin() + static_cast<ptrdiff_t>(change.offset));
}

}  // namespace

struct FaultFiles::Node {
  bool is_directory = false;
  std::string live;
  std::string durable;
  std::vector<DataChange> unsynced;
  int64_t modified_us = 0;

  void Change(DataChange change) {
    support::Apply(change, live);
    unsynced.push_back(std::move(change));
  }

  void Crash(std::mt19937_64& random, uint64_t sector_bytes) {
    for (DataChange& change : unsynced) {
      switch (random() % 3) {
        case 0:  // lost
          break;
        case 1:
          ApplyTorn(std::move(change), random, sector_bytes);
          break;
        default:
          support::Apply(change, durable);
      }
    }
    unsynced.clear();
    live = durable;
  }

 private:
  void ApplyTorn(DataChange change, std::mt19937_64& random, uint64_t sector_bytes) {
    if (change.is_truncate) return support::Apply(change, durable);
    if (change.text.empty()) return;
    if (sector_bytes == 1) {
      change.text.resize(random() % change.text.size());
      // A write of nothing must not extend the file.
      if (!change.text.empty()) support::Apply(change, durable);
      return;
    }
    for (size_t begin = 0; begin < change.text.size();) {
      uint64_t at = change.offset + begin;
      size_t length =
          std::min<size_t>(sector_bytes - at % sector_bytes, change.text.size() - begin);
      if (random() % 2 == 0) {
        support::Apply({.offset = at, .text = change.text.substr(begin, length)}, durable);
      }
      begin += length;
    }
  }
};

// Names `node` as `to`, and takes the name `from` away; either may be empty.
struct FaultFiles::NameChange {
  std::string from;
  std::string to;
  NodePtr node;

  bool Touches(const std::set<std::string>& dirs) const {
    return (!from.empty() && dirs.contains(ParentOf(from))) ||
           (!to.empty() && dirs.contains(ParentOf(to)));
  }
};

class FaultFile : public base::File {
 public:
  FaultFile(FaultFiles& files, FaultFiles::NodePtr node, std::string path, uint64_t generation,
            bool writable)
      : files_(files),
        node_(std::move(node)),
        path_(std::move(path)),
        generation_(generation),
        writable_(writable) {}

  Result<void> ReadAt(uint64_t offset, base::MutableByteView into) const override {
    base::MutexLock lock(files_.mutex_);
    RETURN_IF_ERROR(CheckAlive());
    uint64_t size = node_->live.size();
    if (offset > size || into.size() > size - offset)
      return Error(Code::kCorruption, path_ + " is cut short");
    std::copy_n(node_->live.begin() + static_cast<ptrdiff_t>(offset), into.size(), into.begin());
    return {};
  }

  Result<bool> TryReadAt(uint64_t offset, base::MutableByteView into) const override {
    RETURN_IF_ERROR(ReadAt(offset, into));
    return true;
  }

  Result<void> WriteAt(uint64_t offset, std::span<const ByteView> pieces) override {
    DataChange change{.offset = offset};
    for (ByteView piece : pieces) change.text += base::AsText(piece);
    base::MutexLock lock(files_.mutex_);
    RETURN_IF_ERROR(CheckWritable());
    Result<void> begun = files_.BeginMutation();
    if (!begun.has_value()) {
      uint64_t end = offset + change.text.size() / 2;
      end -= std::min(end % files_.sector_bytes_, end - offset);
      change.text.resize(end - offset);
    }
    uint64_t end = offset + change.text.size();
    uint64_t size = node_->live.size();
    RETURN_IF_ERROR(files_.CheckSpace(end > size ? end - size : 0));
    if (!change.text.empty()) node_->Change(std::move(change));
    node_->modified_us = files_.clock_.NowUs();
    return begun;
  }

  Result<void> WriteBulkAt(uint64_t offset, std::span<const ByteView> pieces) override {
    return WriteAt(offset, pieces);
  }

  Result<void> PunchHole(uint64_t offset, uint64_t length) override {
    base::MutexLock lock(files_.mutex_);
    RETURN_IF_ERROR(CheckWritable());
    RETURN_IF_ERROR(files_.BeginMutation());
    uint64_t size = node_->live.size();
    if (offset >= size) return {};
    uint64_t zeros = std::min(length, size - offset);
    node_->Change({.offset = offset, .text = std::string(zeros, '\0')});
    return {};
  }

  Result<void> Allocate(uint64_t size_bytes) override {
    base::MutexLock lock(files_.mutex_);
    RETURN_IF_ERROR(CheckWritable());
    RETURN_IF_ERROR(files_.BeginMutation());
    uint64_t size = node_->live.size();
    if (size_bytes <= size) return {};
    RETURN_IF_ERROR(files_.CheckSpace(size_bytes - size));
    node_->Change({.offset = size_bytes, .is_truncate = true});
    return {};
  }

  Result<void> Sync() override {
    base::MutexLock lock(files_.mutex_);
    RETURN_IF_ERROR(CheckAlive());
    RETURN_IF_ERROR(files_.BeginMutation());
    node_->durable = node_->live;
    node_->unsynced.clear();
    return {};
  }

  void StartWriteback() override {}
  void WillRead(uint64_t, uint64_t) const override {}

  Result<void> Truncate(uint64_t size_bytes) override {
    base::MutexLock lock(files_.mutex_);
    RETURN_IF_ERROR(CheckWritable());
    RETURN_IF_ERROR(files_.BeginMutation());
    uint64_t size = node_->live.size();
    RETURN_IF_ERROR(files_.CheckSpace(size_bytes > size ? size_bytes - size : 0));
    node_->Change({.offset = size_bytes, .is_truncate = true});
    node_->modified_us = files_.clock_.NowUs();
    return {};
  }

  Result<uint64_t> Size() const override {
    base::MutexLock lock(files_.mutex_);
    RETURN_IF_ERROR(CheckAlive());
    return node_->live.size();
  }

  int descriptor() const override { return -1; }

 private:
  Result<void> CheckAlive() const REQUIRES(files_.mutex_) {
    if (generation_ == files_.generation_) return {};
    return Error(Code::kIo, path_ + " was opened before the crash");
  }

  Result<void> CheckWritable() const REQUIRES(files_.mutex_) {
    RETURN_IF_ERROR(CheckAlive());
    if (writable_) return {};
    return base::ErrnoError(EBADF, "write " + path_);
  }

  FaultFiles& files_;
  FaultFiles::NodePtr node_;
  std::string path_;
  uint64_t generation_;
  bool writable_;
};

FaultFiles::FaultFiles(const base::Clock& clock) : clock_(clock), failure_(Code::kIo, "none") {
  auto root = std::make_shared<Node>();
  root->is_directory = true;
  base::MutexLock lock(mutex_);
  live_["/"] = root;
  durable_["/"] = root;
}

FaultFiles::~FaultFiles() = default;

Result<std::unique_ptr<base::File>> FaultFiles::Open(const std::string& path, Mode mode) {
  std::string name = Normal(path);
  base::MutexLock lock(mutex_);
  bool may_create = mode == Mode::kCreateNew || mode == Mode::kCreateOrOpen;
  if (may_create) {
    RETURN_IF_ERROR(BeginMutation());
    RETURN_IF_ERROR(CheckParent(name));
    bool exists = live_.contains(name);
    if (exists && mode == Mode::kCreateNew) return base::ErrnoError(EEXIST, "open " + path);
    if (!exists) {
      RETURN_IF_ERROR(CheckSpace(1));
      auto node = std::make_shared<Node>();
      node->modified_us = clock_.NowUs();
      ChangeName({.to = name, .node = std::move(node)});
    }
  }
  ASSIGN_OR_RETURN(NodePtr node, FindFile(name));
  return std::unique_ptr<base::File>(
      std::make_unique<FaultFile>(*this, std::move(node), name, generation_, mode != Mode::kRead));
}

Result<void> FaultFiles::Remove(const std::string& path) {
  std::string name = Normal(path);
  base::MutexLock lock(mutex_);
  RETURN_IF_ERROR(BeginMutation());
  ASSIGN_OR_RETURN(NodePtr node, FindFile(name));
  ChangeName({.from = name});
  return {};
}

Result<void> FaultFiles::Rename(const std::string& from, const std::string& to) {
  std::string old_name = Normal(from);
  std::string new_name = Normal(to);
  base::MutexLock lock(mutex_);
  RETURN_IF_ERROR(BeginMutation());
  ASSIGN_OR_RETURN(NodePtr node, FindFile(old_name));
  RETURN_IF_ERROR(CheckParent(new_name));
  auto replaced = live_.find(new_name);
  if (replaced != live_.end() && replaced->second->is_directory)
    return base::ErrnoError(EISDIR, "rename to " + to);
  if (old_name != new_name) ChangeName({.from = old_name, .to = new_name, .node = std::move(node)});
  return {};
}

Result<void> FaultFiles::CreateDirs(const std::string& path) {
  std::string name = Normal(path);
  base::MutexLock lock(mutex_);
  RETURN_IF_ERROR(BeginMutation());
  for (size_t end = name.find('/', 1);; end = name.find('/', end + 1)) {
    std::string prefix = name.substr(0, end);
    auto found = live_.find(prefix);
    if (found == live_.end()) {
      auto node = std::make_shared<Node>();
      node->is_directory = true;
      node->modified_us = clock_.NowUs();
      ChangeName({.to = prefix, .node = std::move(node)});
    } else if (!found->second->is_directory) {
      return base::ErrnoError(ENOTDIR, "create directory " + prefix);
    }
    if (end == std::string::npos) return {};
  }
}

Result<void> FaultFiles::SyncDir(const std::string& path) {
  std::string name = Normal(path);
  base::MutexLock lock(mutex_);
  RETURN_IF_ERROR(BeginMutation());
  auto found = live_.find(name);
  if (found == live_.end()) return base::ErrnoError(ENOENT, "open directory " + path);
  if (!found->second->is_directory) return base::ErrnoError(ENOTDIR, "open directory " + path);
  // A rename becomes durable whole, and so does what happened before it in its other directory.
  std::set<std::string> dirs = {name};
  std::vector<NameChange> synced;
  std::vector<NameChange> left;
  for (auto change = unsynced_names_.rbegin(); change != unsynced_names_.rend(); ++change) {
    if (!change->Touches(dirs)) {
      left.push_back(std::move(*change));
      continue;
    }
    if (!change->from.empty()) dirs.insert(ParentOf(change->from));
    if (!change->to.empty()) dirs.insert(ParentOf(change->to));
    synced.push_back(std::move(*change));
  }
  for (auto change = synced.rbegin(); change != synced.rend(); ++change) Apply(*change, durable_);
  unsynced_names_.assign(std::make_move_iterator(left.rbegin()),
                         std::make_move_iterator(left.rend()));
  return {};
}

Result<std::vector<std::string>> FaultFiles::List(const std::string& dir) {
  std::string name = Normal(dir);
  base::MutexLock lock(mutex_);
  auto found = live_.find(name);
  if (found == live_.end()) return base::ErrnoError(ENOENT, "list " + dir);
  if (!found->second->is_directory) return base::ErrnoError(ENOTDIR, "list " + dir);
  std::vector<std::string> names;
  std::string prefix = name == "/" ? name : name + "/";
  for (auto at = live_.lower_bound(prefix); at != live_.end(); ++at) {
    if (!at->first.starts_with(prefix)) break;
    if (IsIn(at->first, name)) names.push_back(at->first.substr(prefix.size()));
  }
  return names;
}

Result<base::FileInfo> FaultFiles::Stat(const std::string& path) {
  base::MutexLock lock(mutex_);
  auto found = live_.find(Normal(path));
  if (found == live_.end()) return base::ErrnoError(ENOENT, "stat " + path);
  const Node& node = *found->second;
  base::FileInfo info;
  info.size_bytes = node.live.size();
  info.allocated_bytes = node.live.size();
  info.modified_us = node.modified_us;
  info.is_directory = node.is_directory;
  return info;
}

Result<base::SpaceInfo> FaultFiles::Space(const std::string& path) {
  base::MutexLock lock(mutex_);
  if (!live_.contains(Normal(path)))
    return base::ErrnoError(ENOENT, "ask for free space of " + path);
  base::SpaceInfo info;
  info.capacity_bytes = std::min(capacity_bytes_, kReportedCapacityBytes);
  uint64_t used_bytes = UsedBytes();
  if (info.capacity_bytes > used_bytes) info.available_bytes = info.capacity_bytes - used_bytes;
  return info;
}

uint64_t FaultFiles::mutating_calls() const {
  base::MutexLock lock(mutex_);
  return calls_;
}

void FaultFiles::FailCall(uint64_t n, Error error) {
  CHECK(n > 0);
  base::MutexLock lock(mutex_);
  fail_first_ = fail_last_ = calls_ + n;
  failure_ = std::move(error);
}

void FaultFiles::FailFrom(uint64_t n, Error error) {
  CHECK(n > 0);
  base::MutexLock lock(mutex_);
  fail_first_ = calls_ + n;
  fail_last_ = UINT64_MAX;
  failure_ = std::move(error);
}

void FaultFiles::ClearFailures() {
  base::MutexLock lock(mutex_);
  fail_first_ = fail_last_ = UINT64_MAX;
}

void FaultFiles::SetCapacity(uint64_t capacity_bytes) {
  base::MutexLock lock(mutex_);
  capacity_bytes_ = capacity_bytes;
}

uint64_t FaultFiles::used_bytes() const {
  base::MutexLock lock(mutex_);
  return UsedBytes();
}

void FaultFiles::SetSectorBytes(uint64_t sector_bytes) {
  CHECK(sector_bytes > 0);
  base::MutexLock lock(mutex_);
  sector_bytes_ = sector_bytes;
}

void FaultFiles::FlipBit(const std::string& path, uint64_t bit) {
  base::MutexLock lock(mutex_);
  Result<NodePtr> node = FindFile(Normal(path));
  CHECK(node.has_value());
  for (std::string* data : {&(*node)->live, &(*node)->durable}) {
    if (data == &(*node)->live) CHECK(bit / 8 < data->size());
    if (bit / 8 < data->size()) (*data)[bit / 8] ^= static_cast<char>(1 << bit % 8);
  }
}

void FaultFiles::Crash(uint64_t seed, Names names) {
  std::mt19937_64 random(seed);
  base::MutexLock lock(mutex_);
  if (names == Names::kKeepSome) {
    size_t kept = random() % (unsynced_names_.size() + 1);
    for (size_t i = 0; i < kept; ++i) Apply(unsynced_names_[i], durable_);
  }
  unsynced_names_.clear();
  // A name in a directory that is gone is gone; the map's order visits a directory before what is
  // in it.
  for (auto at = durable_.begin(); at != durable_.end();) {
    bool orphan = at->first != "/" && !durable_.contains(ParentOf(at->first));
    at = orphan ? durable_.erase(at) : std::next(at);
  }
  live_ = durable_;
  for (auto& [name, node] : live_) node->Crash(random, sector_bytes_);
  ++generation_;
  fail_first_ = fail_last_ = UINT64_MAX;
}

void FaultFiles::Kill() {
  base::MutexLock lock(mutex_);
  ++generation_;
}

Result<void> FaultFiles::BeginMutation() {
  ++calls_;
  if (calls_ < fail_first_ || calls_ > fail_last_) return {};
  return failure_;
}

Result<void> FaultFiles::CheckSpace(uint64_t more_bytes) const {
  if (more_bytes == 0 || capacity_bytes_ == UINT64_MAX) return {};
  uint64_t used_bytes = UsedBytes();
  if (used_bytes <= capacity_bytes_ && more_bytes <= capacity_bytes_ - used_bytes) return {};
  return base::ErrnoError(ENOSPC, "write");
}

Result<FaultFiles::NodePtr> FaultFiles::FindFile(const std::string& path) const {
  auto found = live_.find(path);
  if (found == live_.end()) return base::ErrnoError(ENOENT, "open " + path);
  if (found->second->is_directory) return base::ErrnoError(EISDIR, "open " + path);
  return found->second;
}

Result<void> FaultFiles::CheckParent(const std::string& path) const {
  auto parent = live_.find(ParentOf(path));
  if (parent == live_.end()) return base::ErrnoError(ENOENT, "open " + path);
  if (!parent->second->is_directory) return base::ErrnoError(ENOTDIR, "open " + path);
  return {};
}

void FaultFiles::ChangeName(NameChange change) {
  Apply(change, live_);
  unsynced_names_.push_back(std::move(change));
}

uint64_t FaultFiles::UsedBytes() const {
  uint64_t used_bytes = 0;
  for (const auto& [name, node] : live_) used_bytes += node->live.size();
  return used_bytes;
}

void FaultFiles::Apply(const NameChange& change, Tree& tree) {
  if (!change.from.empty()) tree.erase(change.from);
  if (!change.to.empty()) tree[change.to] = change.node;
}

}  // namespace support
