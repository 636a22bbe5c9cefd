#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <thread>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/catalog.h"
#include "blockd/exports.h"
#include "blockd/type_directory.h"
#include "blockd/volume_store.h"

namespace blockd {

struct ServingOptions {
  std::string process;  // this one's name: without slashes, of no other, new at each start
  // Who has not been heard of for so long is dead to the others.
  int64_t lease_ms = 8'000;
  int64_t poll_ms = 500;  // how soon a process ends what another one asks it to
};

// Which process serves which attachment, where several share the records. Any of them may publish
// an attachment and open its volume for a client, but says so in the record before it does
// (AttachmentRecord::servers). Whoever detaches asks all that stand there to end it, and waits: for
// the living ones, until they say that no client of theirs can write; for the dead, until their
// lease is over, and then shuts the volume store to them (VolumeStore::Fence).
//
// Keys: N/<process> -> lease until, microseconds; W/<process>/<attachment>: to be ended there.
//
// Thread-safe. All is borrowed and outlives it.
class Serving {
 public:
  Serving(Catalog& catalog, VolumeStore& store, Exports& exports, TypeDirectory& types,
          ServingOptions options);
  ~Serving();  // stops
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;

  // Takes the lease, then keeps it and does what others ask for, on a thread. Before clients come.
  // Forgets processes that are dead for long.
  base::Result<void> Start();
  // Gives the lease back: nobody has to wait for it. When no client is connected any more.
  // Idempotent.
  void Stop();

  // Before a client of this process reaches the volume: the record names us. kNotFound if the
  // attachment is not open to clients (any more).
  base::Result<void> Begin(const std::string& attachment_id);

  // Publishes here an attachment that was made through another process, if there is one.
  void PublishIfThere(const std::string& attachment_id);

  // In a transaction that takes an attachment from its clients: asks all who serve it to end that.
  static void AskToEnd(Transaction& transaction, const AttachmentRecord& attachment);

  // After that was committed, and was withdrawn here: nobody serves it any more. False: not yet;
  // ask again.
  base::Result<bool> HasEnded(const AttachmentRecord& attachment);

  // One of those who serve it lives.
  base::Result<bool> IsServed(const AttachmentRecord& attachment);

  // Does once what the thread does: keeps the lease, ends what others ask for.
  base::Result<void> KeepLease();
  base::Result<void> EndWhatIsAsked();

 private:
  base::Result<bool> IsAlive(const std::string& process);
  base::Result<void> ForgetDead();
  void Run();

  Catalog& catalog_;
  VolumeStore& store_;
  Exports& exports_;
  TypeDirectory& types_;
  const ServingOptions options_;
  base::Mutex mutex_;
  base::CondVar wake_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Withdraws what is published here of attachments that are gone or on their way out, by whatever
// process.
base::Result<void> WithdrawGone(Catalog& catalog, Exports& exports);

}  // namespace blockd
