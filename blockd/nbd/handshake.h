#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "blockd/nbd/export.h"
#include "blockd/nbd/protocol.h"

namespace blockd::nbd {

// A metadata context that the client chose; its id is its index.
struct Context {
  std::string name;
  std::shared_ptr<ChangedBlocks> changed;  // null: base:allocation
};

// What a handshake ends in.
struct Session {
  std::shared_ptr<const Export> exported;
  bool structured_replies = false;
  std::vector<Context> contexts;
};

// The server's side of the fixed newstyle handshake, from the greeting to the first request: a
// machine that is fed bytes and says bytes, without a socket (so it can be fuzzed). Every length is
// checked before anything is kept; an option that is unknown, malformed or too big is answered with
// its error and the machine goes on, as the protocol wants; what can't be answered ends it.
// One thread. It calls the provider, which may block.
class Handshake {
 public:
  enum class Tls { kOff, kOffered, kRequired };
  enum class Next {
    kMore,      // feed more
    kStartTls,  // send `out`, make the connection secret, then TlsStarted()
    kTransmit,  // session() is what was agreed; what was not used of the input is requests
    kClose,     // send `out`, then hang up; why() tells
  };

  // Borrows `provider`. `may_open` is asked with every name before the provider is: false (the
  // server stops) is answered with ERR_SHUTDOWN.
  using MayOpen = std::function<bool(std::string_view name)>;
  // Is asked before a client is let in; why not is told to the client. Null: all are.
  using MayEnter = std::function<base::Result<void>(std::string_view name, const Export& exported)>;
  Handshake(ExportProvider& provider, Tls tls, MayOpen may_open, MayEnter may_enter = nullptr);

  // The server speaks first.
  std::string Greeting() const;
  // Takes whole messages from `input`, says how many bytes in `used`, appends answers to `out`.
  // Stops early at kStartTls and kTransmit.
  Next Feed(base::ByteView input, size_t* used, std::string* out);
  // From here on all is asked anew: what was said in clear text counts for nothing.
  void TlsStarted();

  Session& session() { return session_; }
  const std::string& why() const { return why_; }

 private:
  struct Message {
    uint32_t option = 0;
    base::ByteView data;
  };

  Next FeedFlags(base::ByteView input, size_t* used);
  Next FeedOption(base::ByteView input, size_t* used, std::string* out);
  Next Run(const Message& message, std::string* out);
  Next Close(std::string why);

  // handshake_export.cc
  Next RunList(const Message& message, std::string* out);
  Next RunInfoOrGo(const Message& message, std::string* out);
  Next RunExportName(const Message& message, std::string* out);
  base::Result<void> Open(std::string_view name);
  base::Result<void> Enter(std::string_view name);
  uint16_t TransmissionFlags() const;

  // handshake_context.cc
  Next RunMetaContext(const Message& message, std::string* out);
  base::Result<std::vector<Context>> Match(std::string_view query, bool list);

  ExportProvider& provider_;
  const Tls tls_;
  const MayOpen may_open_;
  const MayEnter may_enter_;
  bool flags_read_ = false;
  bool no_zeroes_ = false;
  bool secret_ = false;
  uint32_t options_ = 0;
  uint64_t skip_bytes_ = 0;    // of an option that is too big: what is still to come
  std::string opened_name_;    // of session_.exported
  std::string contexts_name_;  // of session_.contexts
  Session session_;
  std::string why_;
};

// An answer to an option, as bytes. Shared by the states' files.
void PutOptionReply(uint32_t option, OptionReply type, std::string_view data, std::string* out);

// Takes big-endian integers and byte strings off the front of an option's data; false, taking
// nothing, when it is cut short.
class OptionReader {
 public:
  explicit OptionReader(base::ByteView data) : data_(data) {}
  template <typename T>
  bool Take(T* value) {
    if (data_.size() < sizeof(T)) return false;
    *value = LoadBig<T>(data_.data());
    data_ = data_.subspan(sizeof(T));
    return true;
  }
  bool TakeText(size_t size, std::string_view* text) {
    if (data_.size() < size) return false;
    *text = base::AsText(data_.first(size));
    data_ = data_.subspan(size);
    return true;
  }
  // A 32-bit length, then that many bytes.
  bool TakeString(std::string_view* text) {
    uint32_t size = 0;
    OptionReader tried = *this;
    if (!tried.Take(&size) || !tried.TakeText(size, text)) return false;
    *this = tried;
    return true;
  }
  bool empty() const { return data_.empty(); }

 private:
  base::ByteView data_;
};

template <typename T>
void PutBig(std::string* out, T value) {
  uint8_t raw[sizeof(T)];
  StoreBig(raw, value);
  out->append(reinterpret_cast<const char*>(raw), sizeof(T));
}

}  // namespace blockd::nbd
