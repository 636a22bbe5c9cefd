#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/chunk/changed_since.h"
#include "blockd/chunk/chunk_volume.h"
#include "blockd/chunk/volume_records.h"
#include "blockd/volume_store.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/meta_store.h"

namespace blockd::chunk {

// How many frozen layers a volume reads through at most; a snapshot beyond it is kUnavailable until
// one of them is sealed.
constexpr size_t kMaxFrozenLayers = 16;
// Layers that are made in advance, so that a snapshot need not wait for their files.
constexpr size_t kSpareLayers = 4;
// How much of a layer is sealed before another has its turn, and how many have begun (besides those
// that somebody waits for). Of each the ids of its chunks are in memory.
constexpr uint64_t kSealSliceBytes = 32 * base::kMiB;
constexpr size_t kMaxSealings = 256;

struct ChunkVolumeStoreOptions {
  std::string dir;                               // of the layers' files; made if it is not there
  bool background = true;                        // threads do Tidy's work; else the caller calls it
  uint64_t seal_bytes_per_s = 200 * base::kMiB;  // read and written by the sealer; 0: no limit
  uint64_t reserve_bytes = 64 * base::kMiB;      // left free on the disk by all that takes space
  std::string live_dir;  // parent of the directory of maps that outlive the process; empty: none
};

// Volumes as layers over contents of the chunk store; see README.md for how and why it is right.
//
// Thread-safe. Locks are taken in this order: the store's, a volume's stripes, its stack, a
// layer's.
class ChunkVolumeStore : public VolumeStore {
 public:
  // Removes what a crash left. All that is passed is borrowed and outlives the store. One store a
  // directory.
  static base::Result<std::unique_ptr<ChunkVolumeStore>> Open(ChunkVolumeStoreOptions options,
                                                              base::Files& files,
                                                              chunkstore::ChunkStore& chunks,
                                                              chunkstore::MetaStore& meta,
                                                              base::Metrics& metrics);
  // Flushes. REQUIRES: no volume is in use.
  ~ChunkVolumeStore() override;

  base::Result<void> Create(const NewVolume& volume) override;
  base::Result<std::shared_ptr<Volume>> Open(const std::string& id) override;
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

  // One round of what the background thread does: removes files and holders that nothing uses,
  // closes what is not in use, makes spare layers, seals some of a layer. True if it did. What
  // fails is logged and comes again.
  bool Tidy() EXCLUDES(mutex_);

 private:
  using Change = VolumeRecords::Change;
  // A holder that no record names any more; its content may still be read.
  struct DeadHolder {
    std::string holder;
    std::shared_ptr<chunkstore::Content> content;
  };

  ChunkVolumeStore(ChunkVolumeStoreOptions options, base::Files& files,
                   chunkstore::ChunkStore& chunks, VolumeRecords records, base::Metrics& metrics);
  base::Result<void> RemoveLeftovers() EXCLUDES(mutex_);
  base::Result<void> RemoveLeftoverHolders() EXCLUDES(mutex_);
  void TakeUpLiveLayers() EXCLUDES(mutex_);

  // Layers, from the lock in.
  base::Result<std::shared_ptr<Layer>> OpenLayer(const std::string& id) REQUIRES(mutex_);
  base::Result<std::shared_ptr<chunkstore::Content>> OpenContent(const std::string& layer,
                                                                 const std::string& holder)
      REQUIRES(mutex_);
  base::Result<std::shared_ptr<const Stack>> StackFrom(const std::string& layer) REQUIRES(mutex_);
  base::Result<void> Commit(Change change) REQUIRES(mutex_);
  bool InUse(const std::string& volume) const REQUIRES(mutex_);

  // New heads.
  base::Result<std::shared_ptr<Layer>> TakeSpare() EXCLUDES(mutex_);
  base::Result<std::shared_ptr<Layer>> NewHead(uint64_t allocate_bytes) EXCLUDES(mutex_);
  base::Result<std::shared_ptr<Layer>> NewHeadFor(const std::string& volume, uint64_t* size_bytes)
      EXCLUDES(mutex_);
  base::Result<void> Reserve(Layer& layer, uint64_t size_bytes) EXCLUDES(reserve_mutex_);
  void Discard(const std::shared_ptr<Layer>& head) EXCLUDES(mutex_);

  // Parts of the calls.
  struct Parts {  // that a new volume is made of
    std::shared_ptr<Layer> head;
    std::shared_ptr<Layer> source_head;  // of the volume that it is a copy of
    uint64_t source_size_bytes = 0;      // that source_head was made for
    std::string content;                 // layer
    std::string holder;
    uint64_t content_bytes = 0;
  };
  base::Result<void> TakeContent(const NewVolume& volume, Parts* parts) EXCLUDES(mutex_);
  base::Result<void> MakeParts(const NewVolume& volume, Parts* parts) EXCLUDES(mutex_);
  void DiscardParts(const Parts& parts) EXCLUDES(mutex_);
  base::Result<void> AddVolume(const NewVolume& volume, const Parts& parts, std::string* to_flush)
      EXCLUDES(mutex_);
  base::Result<std::string> ParentOf(const NewVolume& volume, const Parts& parts, Change* change)
      REQUIRES(mutex_);
  base::Result<std::string> Freeze(const std::string& volume, const Layer& new_head,
                                   uint64_t expected_bytes, Change* change) REQUIRES(mutex_);
  void SwitchHead(const std::string& volume, const std::shared_ptr<Layer>& head) REQUIRES(mutex_);
  base::Result<void> KeepSnapshot(const std::string& volume_id, const std::string& snapshot_id,
                                  const std::shared_ptr<Layer>& head, uint64_t expected_bytes,
                                  std::string* frozen) EXCLUDES(mutex_);
  base::Result<void> SwitchToSnapshot(const std::string& volume_id, const std::string& snapshot_id,
                                      const std::shared_ptr<Layer>& head, uint64_t expected_bytes)
      EXCLUDES(mutex_);
  // The volume and its snapshot as they are now.
  base::Result<chunk::ChangedSince::Stacks> StacksOf(const std::string& volume_id,
                                                     const std::string& snapshot_id)
      EXCLUDES(mutex_);
  // The volume as it is now, and what the holder holds.
  base::Result<chunk::ChangedSince::Stacks> StackAndContent(const std::string& volume_id,
                                                            const std::string& holder)
      EXCLUDES(mutex_);
  base::Result<void> SwitchToContent(const std::string& volume_id, const Parts& parts,
                                     uint64_t expected_bytes) EXCLUDES(mutex_);
  std::vector<std::shared_ptr<Layer>> OpenLayersFrom(const std::string& layer) REQUIRES(mutex_);
  base::Result<void> FlushFrom(const std::string& layer) EXCLUDES(mutex_);
  VolumeInfo InfoOf(const std::string& id, const VolumeRecord& record) const REQUIRES(mutex_);
  SnapshotInfo InfoOf(const std::string& id, const SnapshotRecord& record) const REQUIRES(mutex_);

  // Background (tidy.cc).
  void Run();
  void RemoveDeadFiles() EXCLUDES(mutex_);
  void ReleaseDeadHolders() EXCLUDES(mutex_);
  void CloseIdle() EXCLUDES(mutex_);
  bool MakeSpares() EXCLUDES(mutex_);
  void RunSpares() EXCLUDES(mutex_);
  void RunHoles() EXCLUDES(mutex_);
  bool PunchHoles() EXCLUDES(mutex_);

  // Sealing (sealer.cc): by whoever calls Tidy, one at a time.
  struct Sealing {
    std::string layer;
    uint64_t size_bytes = 0;
    std::shared_ptr<const Stack> stack;          // the layer, over the content of its parent
    std::string parent_holder;                   // empty: no parent
    std::string holder;                          // that is to hold it
    std::unique_ptr<chunkstore::Ingest> ingest;  // once it has begun
    uint64_t next_index = 0;                     // of the first chunk that wasn't looked at
    uint64_t last_turn = 0;
  };
  base::Result<bool> SealNext() EXCLUDES(mutex_);
  std::string LowestFrozen(std::string id) const REQUIRES(mutex_);
  std::string ChooseToSeal() REQUIRES(mutex_);
  base::Result<Sealing*> TakeTurn(std::vector<Sealing>* gone) REQUIRES(mutex_);
  base::Result<Sealing> PrepareSealing(const std::string& layer) REQUIRES(mutex_);
  base::Result<void> BeginSealing(Sealing& sealing) EXCLUDES(mutex_);
  base::Result<bool> PutSlice(Sealing& sealing) EXCLUDES(mutex_);
  base::Result<bool> RunTurn(Sealing& sealing) EXCLUDES(mutex_);
  base::Result<uint64_t> SealChunk(Sealing& sealing, base::Buffer& buffer) EXCLUDES(mutex_);
  base::Result<void> EndSealing(const Sealing& sealing, const chunkstore::Root& root)
      EXCLUDES(mutex_);
  void Pace(uint64_t bytes) EXCLUDES(mutex_);

  const ChunkVolumeStoreOptions options_;
  base::Files& files_;
  chunkstore::ChunkStore& chunks_;
  Headroom headroom_;
  const std::shared_ptr<LiveDir> live_;  // may be null
  base::Gauge& unsealed_layers_;
  base::Counter& sealed_bytes_;
  base::Histogram& taken_seconds_;  // of snapshots
  base::Histogram& durable_seconds_;

  base::Mutex reserve_mutex_;
  base::Mutex mutex_;
  VolumeRecords records_ GUARDED_BY(mutex_);
  size_t flushes_ GUARDED_BY(mutex_) = 0;  // that a caller waits for
  // Open for use, or not closed yet. A layer leaves only when it is clean or gone: what was not
  // flushed is nowhere else.
  std::map<std::string, std::shared_ptr<Layer>> open_layers_ GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<chunkstore::Content>> contents_ GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<ChunkVolume>> open_volumes_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Layer>> spares_ GUARDED_BY(mutex_);
  std::vector<std::string> dead_layers_ GUARDED_BY(mutex_);
  std::vector<DeadHolder> dead_holders_ GUARDED_BY(mutex_);
  std::map<std::string, uint64_t> frozen_order_ GUARDED_BY(mutex_);
  uint64_t freezes_ GUARDED_BY(mutex_) = 0;
  std::string punched_ GUARDED_BY(mutex_);           // volume that is held open by PunchHoles alone
  std::set<std::string> wanted_ GUARDED_BY(mutex_);  // layers that somebody waits for
  std::map<std::string, Sealing> sealings_;          // that have begun, by layer: the sealer's
  uint64_t turns_ = 0;                               // the sealer's

  base::CondVar wake_;
  base::CondVar wake_spares_;
  base::CondVar wake_holes_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
  std::thread spares_thread_;
  std::thread holes_thread_;
};

}  // namespace blockd::chunk
