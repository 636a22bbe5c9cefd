#include "blockd/step_tools.h"

#include <algorithm>

#include "base/log.h"
#include "blockd/notices.h"

namespace blockd {

using base::Code;
using base::Error;
using base::Result;

namespace {

// Never becomes better by trying again.
bool IsFinal(const Error& error) {
  switch (error.code()) {
    case Code::kIo:
    case Code::kUnavailable:
    case Code::kConflict:
    case Code::kCancelled:
      return false;
    default:
      return true;
  }
}

// An operation as messages have it; the numbers are those of Cinder's message fields.
struct Words {
  std::string_view resource;
  std::string_view action;
  std::string_view detail;
  std::string_view failed;  // a sentence without its end
};

Words WordsOf(Op op) {
  switch (op) {
    case Op::kCreateVolume:
      return {"VOLUME", "008", "012", "The volume could not be made"};
    case Op::kDeleteVolume:
      return {"VOLUME", "008", "001", "The volume could not be deleted"};
    case Op::kExtend:
      return {"VOLUME", "007", "010", "The volume could not be extended"};
    case Op::kRevert:
      return {"VOLUME", "008", "001", "The volume could not be reverted to the snapshot"};
    case Op::kReimage:
      return {"VOLUME", "016", "028", "The volume could not be made anew of the image"};
    case Op::kRetype:
      return {"VOLUME", "008", "001", "The volume could not be moved to its new type's back end"};
    case Op::kUploadImage:
      return {"VOLUME", "003", "004", "The volume could not be uploaded to the image"};
    case Op::kCreateSnapshot:
      return {"VOLUME_SNAPSHOT", "009", "013", "The snapshot could not be taken"};
    case Op::kDeleteSnapshot:
      return {"VOLUME_SNAPSHOT", "010", "016", "The snapshot could not be deleted"};
    case Op::kDetach:
      return {"VOLUME", "004", "022", "The volume could not be detached"};
    case Op::kSnapshotForBackup:
    case Op::kCreateBackup:
      return {"VOLUME_BACKUP", "013", "020", "The backup could not be made"};
    case Op::kDeleteBackup:
      return {"VOLUME_BACKUP", "014", "025", "The backup could not be deleted"};
    case Op::kRestoreBackup:
      break;
  }
  return {"VOLUME", "015", "026", "The backup could not be restored"};
}

std::string_view WhyAndWhatToDo(Code code) {
  switch (code) {
    case Code::kOutOfSpace:
      return "there is no space left for it. Delete what is not needed any more, or ask the "
             "operator for space, then try again.";
    case Code::kQuotaExceeded:
      return "a quota does not allow it. Delete what is not needed any more, or ask the operator "
             "for more, then try again.";
    case Code::kNotFound:
      return "what it needs is not there any more. Make it of something else.";
    case Code::kInvalidArgument:
    case Code::kTooLarge:
      return "what it asks for is not to be had here: look at sizes, formats and the volume type, "
             "then try again.";
    case Code::kConflict:
      return "it was in use all the time. Detach it, then try again.";
    case Code::kCorruption:
      return "data that it needs is damaged. Tell the operator, with the id of this request.";
    case Code::kIo:
    case Code::kUnavailable:
      return "the storage failed again and again. Try again later; if it stays so, tell the "
             "operator, with the id of this request.";
    default:
      return "of an unknown error. Try again; if it stays so, tell the operator, with the id of "
             "this request.";
  }
}

}  // namespace

bool Attempt::MayTryAgain(const Error& error) const {
  if (error.code() == Code::kCancelled || control.cancelled()) return true;
  return !last && !IsFinal(error);
}

Result<bool> IsStillToBeCopied(const Jobs::World& world, const VolumeRecord& volume) {
  if (volume.holds > 0) return true;
  if (volume.snapshots == 0) return false;
  ASSIGN_OR_RETURN(const auto snapshots, world.catalog.SnapshotsOf(volume.id));
  return std::any_of(snapshots.begin(), snapshots.end(), [](const SnapshotRecord& snapshot) {
    return snapshot.status == SnapshotStatus::kCreating;
  });
}

bool ComesTooFast(const Jobs::World& world, const Error& error, int64_t asked_at_us) {
  return error.code() == Code::kUnavailable &&
         world.catalog.NowUs() - asked_at_us < kSnapshotPatienceUs;
}

Result<bool> ChangeVolumeIn(Catalog& catalog, const std::string& id, VolumeStatus from,
                            const StepChange& change) {
  bool changed = false;
  RETURN_IF_ERROR(catalog.Transact([&](Transaction& transaction) -> Result<void> {
    changed = false;
    Result<void> failed;
    std::optional<VolumeRecord> volume = IfThere(transaction.GetVolume(id), &failed);
    RETURN_IF_ERROR(failed);
    if (!volume.has_value() || volume->status != from) return {};
    RETURN_IF_ERROR(change(transaction, *volume));
    changed = true;
    return transaction.Put(*volume);
  }));
  return changed;
}

void LogGivenUp(const JobSpec& spec, const Error& error) {
  LOG(kError, "blockd", "{} of {} is given up ({}): {}", OpName(spec.op), spec.id,
      spec.request_id.empty() ? "no request" : spec.request_id, error.ToString());
}

std::string GivenUpText(Op op, Code code) {
  std::string text(WordsOf(op).failed);
  return text.append(": ").append(WhyAndWhatToDo(code));
}

Result<void> TellGivenUp(const Jobs::World& world, Transaction& transaction, const JobSpec& spec,
                         const Error& error) {
  if (world.notices == nullptr) return {};
  const Words words = WordsOf(spec.op);
  Notice notice;
  notice.project_id = spec.project_id;
  notice.request_id = spec.request_id;
  notice.resource_type = words.resource;
  notice.resource_id = spec.id;
  notice.event_id = "VOLUME_" + std::string(words.resource) + "_" + std::string(words.action) +
                    "_" + std::string(words.detail);
  notice.text = GivenUpText(spec.op, error.code());
  return world.notices->Tell(transaction, notice);
}

}  // namespace blockd
