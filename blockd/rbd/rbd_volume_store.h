#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/rbd/changed_since.h"
#include "blockd/rbd/cluster.h"
#include "blockd/rbd/ledger.h"
#include "blockd/rbd/sessions.h"
#include "blockd/rbd/turns.h"
#include "blockd/volume_store.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/meta_store.h"

namespace blockd::rbd {

constexpr size_t kMaxIdBytes = 64;
// Names of the holders under which points and parents keep their contents.
constexpr const char* kHolders = "rbd/";

struct Options {
  ClusterOptions cluster;
  bool background = true;                        // threads do Tidy's work; else the caller calls it
  uint64_t seal_bytes_per_s = 200 * base::kMiB;  // read by the sealer; 0: no limit
  // A process that does not renew for so long is taken for gone: what it had open may be taken
  // over.
  int64_t lease_ms = 6'000;
  // A parent without children that no volume was made of for so long goes.
  int64_t parent_idle_ms = 24LL * 3600 * 1000;
};

// Volumes as RBD images; README.md says how and why it is right. Any number of these, in as many
// processes, may work on one pool and namespace: they share the MetaStore and the chunk store.
//
// As VolumeStore says, and besides: a volume that another process has open is in use (kConflict for
// Open, Remove, Revert, Refill; Snapshot and Resize are done by way of that process). What a
// process had open that is gone is taken over by the next Open: its connection is fenced first.
// Extents and changed blocks come by objects of 4 MiB. The first volume of an image waits until its
// parent is filled. A thick volume is kInvalidArgument: RBD's are thin.
//
// Thread-safe.
class RbdVolumeStore : public VolumeStore {
 public:
  // All borrowed; they outlive the store.
  static base::Result<std::unique_ptr<RbdVolumeStore>> Open(const Options& options,
                                                            chunkstore::ChunkStore& chunks,
                                                            chunkstore::MetaStore& meta,
                                                            const base::Clock& clock,
                                                            base::Metrics& metrics);
  // REQUIRES: no volume is in use.
  ~RbdVolumeStore() override;

  base::Result<void> Create(const NewVolume& volume) override;
  base::Result<std::shared_ptr<Volume>> Open(const std::string& id) override;
  // kUnavailable while the process that has it open is not taken for gone.
  base::Result<void> Fence(const std::string& id) override;
  base::Result<void> Remove(const std::string& id) override;
  base::Result<void> Resize(const std::string& id, uint64_t size_bytes) override;
  base::Result<void> Snapshot(const std::string& volume_id,
                              const std::string& snapshot_id) override;
  base::Result<void> RemoveSnapshot(const std::string& id) override;
  base::Result<void> Revert(const std::string& volume_id, const std::string& snapshot_id) override;
  base::Result<void> Refill(const std::string& volume_id, const std::string& holder) override;
  base::Result<std::string> SnapshotHolder(const std::string& id) override;
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSince(
      const std::string& volume_id, const std::string& snapshot_id) override;
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSinceContent(
      const std::string& volume_id, const std::string& holder) override;
  base::Result<VolumeInfo> FindVolume(const std::string& id) override;
  base::Result<SnapshotInfo> FindSnapshot(const std::string& id) override;
  base::Result<std::vector<VolumeInfo>> Volumes() override;
  base::Result<std::vector<SnapshotInfo>> Snapshots() override;

  // One round of what the background threads do: renews the lease, gives up what processes that are
  // gone had begun, removes images, RBD snapshots, parents and holders that nothing uses, seals a
  // snapshot. True if it did. What fails is logged and comes again.
  bool Tidy();

 private:
  RbdVolumeStore(const Options& options, chunkstore::ChunkStore& chunks,
                 chunkstore::MetaStore& meta, const base::Clock& clock, base::Metrics& metrics);
  base::Result<std::shared_ptr<Cluster>> Connection() EXCLUDES(mutex_);

  // Ownership (ownership.cc).
  struct OpenImage {
    std::weak_ptr<Volume> volume;
    std::shared_ptr<Image> image;
  };
  // An image to change: the one that is open here, or one for this purpose, whose claim goes with
  // it.
  struct Lease {
    std::shared_ptr<Image> image;
    bool claimed = false;  // for this; else it is open, here or in another process, which is asked
  };
  std::optional<OpenImage> FindOpen(const std::string& id) EXCLUDES(mutex_);
  base::Result<bool> TryClaim(const std::string& id, bool open, bool* existed);
  base::Result<bool> Claim(const std::string& id, bool open, bool* existed);
  void ReleaseClaim(const std::string& id);
  base::Result<std::shared_ptr<Image>> OpenOwned(const std::string& id, bool break_others);
  std::shared_ptr<Volume> Hand(const std::string& id, const std::shared_ptr<Image>& image)
      EXCLUDES(mutex_);
  void RunCloser() EXCLUDES(mutex_);
  void CloseIfUnused(const std::string& id) EXCLUDES(mutex_);
  bool IsInUseHere(const std::string& id) EXCLUDES(mutex_);
  void Close(const std::string& id) EXCLUDES(mutex_);
  base::Result<Lease> Borrow(const std::string& id);
  void Return(const std::string& id, Lease& lease);
  // Nobody has it open, nor opens it until ReleaseClaim.
  base::Result<void> ClaimAlone(const std::string& id);

  // Points and images (creation.cc).
  // Makes a point that this session holds; `keep` may pass it on in the same commit.
  using Keep = std::function<base::Result<void>(Change& change, const std::string& point,
                                                PointRecord& record)>;
  base::Result<std::string> TakePoint(const std::string& volume, const Keep& keep);
  base::Result<void> SnapPoint(const std::string& point, Image& image, const Keep& keep);
  void LetGoOfPoint(const std::string& point);
  base::Result<std::string> NewImage(const std::string& volume, uint64_t size_bytes,
                                     const std::string& base);
  base::Result<void> FillNewImage(const std::string& image, uint64_t size_bytes,
                                  const std::string& base);
  void UndoImage(const std::string& image);
  base::Result<std::string> PointToClone(const std::string& point, uint64_t limit_bytes);
  base::Result<void> MakeVolume(const NewVolume& volume);
  base::Result<std::string> BaseOf(const NewVolume& volume, std::string* taken);
  static base::Result<void> Adopt(Change& change, const std::string& image);
  using FindBase = std::function<base::Result<std::string>()>;
  base::Result<void> SwitchTo(const std::string& volume, const FindBase& find_base);
  void GiveUpUnadopted(const std::string& image);

  // Parents (parents.cc).
  base::Result<std::string> ParentOf(const std::string& holder, uint64_t limit_bytes);
  base::Result<std::optional<std::string>> FindOrBegin(const std::string& root,
                                                       ParentRecord* begun);
  base::Result<std::string> Fill(const std::string& root, const ParentRecord& parent,
                                 const std::string& source);
  base::Result<void> FillImage(const ParentRecord& parent, const std::string& source,
                               const std::string& point, uint64_t* size_bytes);
  void GiveUpFilling(const std::string& root, const ParentRecord& parent);

  // Background (tidy.cc, sealer.cc).
  void Run();
  void RunBeats();
  void Beat();
  bool Did(const char* what, const base::Result<bool>& result);
  base::Result<bool> ReleaseHolders();
  base::Result<bool> GiveUpDeadPoints();
  base::Result<bool> RemoveImages();
  base::Result<bool> RemoveImage(const std::string& image);
  base::Result<bool> DropSnaps();
  base::Result<void> DropSnapsOf(const std::string& id);
  base::Result<void> DropSnapsOn(const std::string& id, Image& image);
  base::Result<bool> RemoveIdleParents();
  base::Result<bool> SealNext();
  struct Sealing {
    std::string point;
    PointRecord record;
    std::string from;  // the RBD snapshot that it is compared with; empty: all that was written
    std::string base_holder;  // of the content there; empty: none
    std::string holder;       // that is to hold it
  };
  base::Result<bool> SealOne(const std::string& point);
  base::Result<std::optional<Sealing>> PrepareSealing(const std::string& point, Image& image);
  base::Result<bool> ClaimSealing(Sealing& sealing);
  base::Result<void> PutContent(const Sealing& sealing, Image& image);
  base::Result<void> PutObjects(const Sealing& sealing, Image& image, chunkstore::Ingest& ingest,
                                uint64_t base_bytes);
  base::Result<void> EndSealing(const Sealing& sealing, bool sealed);
  void Pace(uint64_t bytes) EXCLUDES(mutex_);

  const Options options_;
  chunkstore::ChunkStore& chunks_;
  const base::Clock& clock_;
  Ledger ledger_;
  Sessions sessions_;
  Turns turns_;  // of volumes, here
  base::Counter& sealed_bytes_;
  base::Counter& filled_bytes_;
  base::Histogram& snapshot_seconds_;

  base::Mutex mutex_;
  std::shared_ptr<Cluster> cluster_ GUARDED_BY(mutex_);
  std::map<std::string, OpenImage> open_ GUARDED_BY(mutex_);
  struct Closed {
    std::string id;
    std::unique_ptr<Volume> volume;
  };
  std::vector<Closed> closed_ GUARDED_BY(mutex_);    // by their last users
  std::set<std::string> wanted_ GUARDED_BY(mutex_);  // points that somebody waits for
  std::map<std::string, int64_t> blocked_;           // images with children, since when: Tidy's
  int64_t next_upkeep_us_ = 0;                       // Tidy's

  base::CondVar wake_;
  base::CondVar wake_beats_;
  base::CondVar wake_closer_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
  std::thread beats_;
  std::thread closer_;
};

}  // namespace blockd::rbd
