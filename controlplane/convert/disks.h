#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/bytes.h"
#include "base/thread_annotations.h"
#include "blockd/volume.h"
#include "chunkstore/chunk_store.h"
#include "controlplane/convert/put_ahead.h"

// The two disks that a converter is given.

namespace controlplane::convert {

// A content as a disk that is only read; zeros fill its last sector. Thread-safe.
class ContentDisk : public blockd::Volume {
 public:
  explicit ContentDisk(std::shared_ptr<chunkstore::Content> content);

  uint64_t size_bytes() const override { return size_bytes_; }
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override;
  base::Result<void> Write(uint64_t offset, base::ByteView data) override;
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override;
  base::Result<void> Flush() override { return {}; }
  void Prefetch(uint64_t /*offset*/, uint64_t /*length*/) override {}
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override;

  // The first error that reading the content gave; the converter only saw EIO.
  std::optional<base::Error> error();

 private:
  base::Result<void> Note(base::Result<void> result);
  uint64_t InContent(uint64_t offset, uint64_t length) const;

  const std::shared_ptr<chunkstore::Content> content_;
  const uint64_t size_bytes_;
  base::Mutex mutex_;
  std::optional<base::Error> error_ GUARDED_BY(mutex_);
};

// A disk that is written from its beginning to its end, into an ingest; what is left out is zeros.
// It gathers one chunk: who has written beyond a chunk can't go back to it. Nothing is read.
// Thread-safe, though who writes from several threads has no order.
class IngestDisk : public blockd::Volume {
 public:
  IngestDisk(std::shared_ptr<chunkstore::Ingest> ingest, uint64_t size_bytes);

  uint64_t size_bytes() const override { return size_bytes_; }
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override;
  base::Result<void> Write(uint64_t offset, base::ByteView data) override;
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override;
  base::Result<void> Flush() override { return {}; }
  void Prefetch(uint64_t /*offset*/, uint64_t /*length*/) override {}
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override;

  // Nothing more comes: puts the last chunk, and waits for all. The first error of all that was
  // written, if there was one.
  base::Result<void> Finish();

 private:
  base::Result<void> WriteLocked(uint64_t offset, base::ByteView data) REQUIRES(mutex_);
  base::Result<void> Reach(uint64_t chunk) REQUIRES(mutex_);
  base::Result<void> PutCurrent() REQUIRES(mutex_);

  const std::shared_ptr<chunkstore::Ingest> ingest_;
  const uint64_t size_bytes_;
  base::Mutex mutex_;
  PutAhead puts_ GUARDED_BY(mutex_);
  base::Buffer chunk_ GUARDED_BY(mutex_);
  std::optional<uint64_t> current_ GUARDED_BY(mutex_);  // the number of the chunk in chunk_
  uint64_t next_ GUARDED_BY(mutex_) = 0;                // the least that may still come
  std::optional<base::Error> error_ GUARDED_BY(mutex_);
};

}  // namespace controlplane::convert
