#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/meta_store.h"
#include "chunkstore/references_format.h"

namespace chunkstore {

// The index: which blob holds an id, and who refers to it. Each step below is one atomic commit to
// one partition, so every state between two steps is one that a crash may leave. README.md argues
// why all of them are right; the rules that callers keep:
//
//  1. A tag's reason (journal entry, holder, page record) is durable before the tag is there, and
//  goes only after
//     the tag's removal is durable.
//  2. Tags are unique to an incarnation (token, page incarnation) and never come back once dropped
//  by the reason's
//     end, so adding and dropping are idempotent and a late drop can't hit a newer reference.
//  3. A blob is removed only after a Doomed entry names it, and that is durable.
//
// Thread-safe; takes a lock a partition, only so that threads of one process don't conflict with
// each other.
class References {
 public:
  explicit References(MetaStore& meta);

  base::Result<std::optional<Record>> Find(const base::Digest256& id);

  // Adds `tag` to an id that has a record: resurrects garbage that nobody took yet. Fine if the tag
  // is there. `found` tells the record as it is now. kAbsent: no record. kBad: quarantined, or only
  // what it lends is left; not tagged.
  enum class Added { kYes, kAbsent, kBad };
  struct AddResult {
    Added added = Added::kAbsent;
    Record record;
  };
  base::Result<AddResult> Add(const base::Digest256& id, std::string_view tag);

  // Adds `tag` to each (quarantined or not). kNotFound, with some tagged or none, if one has no
  // record.
  base::Result<void> AddToAll(std::span<const base::Digest256> ids, std::string_view tag);

  // Drops `tag` from each that has it. A record without tags is garbage; a manifest is doomed at
  // once (nobody shares it), and told to `doomed` if that is given.
  base::Result<void> DropFromAll(std::span<const base::Digest256> ids, std::string_view tag,
                                 std::vector<Doomed>* doomed = nullptr);

  // Before a blob is written: says that `token` is about to. `borrows`: it may have borrower's
  // tags.
  base::Result<void> Intend(Token token, const BlobRef& blob, bool borrows);

  // Lends blocks of `owner`, where they begin in `pages` (EncodeLent), to a blob that was intended.
  // False, and nothing done, unless the owner is wanted for itself, whole, and in the very blob
  // that the borrower looked at.
  base::Result<bool> Lend(const BlobRef& owner, const BlobRef& borrower,
                          std::span<const uint16_t> pages);
  // The same for a borrower that has borrowed already (repair, rebuild), whatever became of the
  // owner; false if it has no record.
  base::Result<bool> LendAnyway(const base::Digest256& owner, const BlobRef& borrower,
                                std::span<const uint16_t> pages);

  // What each borrower has of an owner; `visit` returns false to stop.
  using LentVisitor =
      std::function<base::Result<bool>(const BlobRef& borrower, std::span<const uint16_t> pages)>;
  base::Result<void> VisitLent(const base::Digest256& id, const LentVisitor& visit);
  // The pages that are lent to somebody, ascending, each once.
  base::Result<std::vector<uint16_t>> LentPages(const base::Digest256& id);

  // Ids that are kept for what they lend alone, and where that may be less than the blob holds: in
  // order, those after `after`.
  base::Result<std::vector<base::Digest256>> ListLenders(
      size_t partition, const std::optional<base::Digest256>& after, size_t limit);
  // Takes an id off that list, if its record is still this one.
  base::Result<void> PassLender(const base::Digest256& id, const Record& record);
  // Puts a blob with less in place of the record's, which must still be as it was looked at:
  // nothing was lent since, nobody wants the chunk. Spends the intent. False: it is no longer so,
  // and `mine` is doomed instead. What lost is appended to `doomed`.
  base::Result<bool> Shrink(Token token, const base::Digest256& id, const Record& looked_at,
                            const Record& mine, std::vector<Doomed>* doomed);

  // After the blob was written: makes its record, or heals a quarantined one, or makes a page of a
  // chunk, or (somebody was faster) joins the one that is there; the token's ingest tag is on it
  // then. Spends the intent;
  // kCancelled if that is gone: the ingest was taken for abandoned. What lost is appended to
  // `doomed`.
  struct Settled {
    bool created = false;  // our blob is the record's blob
    bool refused = false;  // it borrows, and what it would heal lends: write one that does not; or
                           // it is a chunk, and what it would heal is a page by now
    Record record;
  };
  base::Result<Settled> Settle(Token token, const base::Digest256& id, Record mine,
                               std::vector<Doomed>* doomed);

  // Gives back what an ingest holds in one partition: intents (their blobs are doomed) and tags.
  base::Result<void> DropIngest(Token token, size_t partition, std::vector<Doomed>* doomed);

  // Changes a record in place if `edit` says so (returns true), atomically. False if there is none
  // or edit declined.
  using Edit = std::function<bool(Record& record)>;
  base::Result<bool> Change(const base::Digest256& id, const Edit& edit);

  // The collector: turns up to `limit` garbage records of a partition into doomed entries, and
  // lists the entries that are there (also others', left by a crash), at most `limit`.
  struct Taken {
    uint64_t chunks = 0;
    uint64_t pages = 0;
    uint64_t records = 0;  // all that were garbage
  };
  base::Result<Taken> TakeGarbage(size_t partition, size_t limit);
  base::Result<std::vector<Doomed>> ListDoomed(size_t partition, size_t limit);
  base::Result<std::vector<base::Digest256>> ListGarbage(size_t partition);
  // Forgets them, after their blobs are gone.
  base::Result<void> ForgetDoomed(std::span<const Doomed> doomed);

  // True if a record, a doomed entry or an intent names this blob.
  base::Result<bool> IsKnown(const BlobRef& blob);

  // Tags of pages and holders on an id, in order, after `after`; at most `limit`.
  base::Result<std::vector<std::string>> Tags(const base::Digest256& id, std::string_view after,
                                              size_t limit);

  // Every record of a partition, in batches so that `visit` may use the store. Returns false to
  // stop.
  using RecordVisitor =
      std::function<base::Result<bool>(const base::Digest256& id, const Record& record)>;
  base::Result<bool> VisitRecords(size_t partition, const RecordVisitor& visit);

  // Checks one record against its tags; with `repair`, sets count and garbage mark right, whatever
  // other processes do meanwhile. Returns what was wrong, or nothing.
  base::Result<std::optional<std::string>> CheckCount(const base::Digest256& id, bool repair);

  // Makes a record where none is (rebuild). kConflict if there is one.
  base::Result<void> Insert(const base::Digest256& id, const Record& record);

 private:
  // Builds a batch under the partition's lock and commits it, again after each conflict (another
  // process).
  using OwnerCheck = std::function<bool(const Record& owner)>;
  base::Result<bool> LendIf(const base::Digest256& owner, const BlobRef& borrower,
                            std::span<const uint16_t> pages, const OwnerCheck& may_lend);
  struct Counted {
    uint64_t tags = 0;
    uint64_t lent = 0;  // of them
    bool garbage = false;
    bool operator==(const Counted&) const = default;
    bool Fits(const Record& record) const {
      return tags == record.count && lent == record.lent && garbage == (tags == 0);
    }
  };
  base::Result<Counted> Count(const base::Digest256& id);
  base::Result<std::optional<std::string>> FindMiscount(const base::Digest256& id);
  base::Result<void> Recount(const base::Digest256& id);
  using Build = std::function<base::Result<void>(MetaBatch& batch)>;
  base::Result<void> Commit(size_t partition, const Build& build);

  base::Result<std::vector<base::Digest256>> ListMarked(size_t partition, std::string_view mark,
                                                        const std::string& from, size_t limit);
  base::Result<std::optional<std::string>> Value(size_t partition, const std::string& key);
  base::Result<std::optional<Record>> Expect(const base::Digest256& id, MetaBatch& batch);
  base::Result<void> DropOne(const base::Digest256& id, std::string_view tag, MetaBatch& batch,
                             std::vector<Doomed>* doomed);
  base::Result<void> ForEachPartition(
      std::span<const base::Digest256> ids,
      const std::function<base::Result<void>(size_t, std::span<const base::Digest256>)>& work);

  MetaStore& meta_;
  std::vector<std::string> names_;  // of the partitions
  std::array<base::Mutex, kRecordPartitions> locks_;
};

}  // namespace chunkstore
