#include "blockd/nbd/metrics.h"

namespace blockd::nbd {

ServerMetrics::ServerMetrics(base::Metrics& all)
    : registry(all),
      connections(all.GetGauge("quarry_nbd_connections", "NBD connections open now.")),
      accepted(all.GetCounter("quarry_nbd_connections_total", "NBD connections accepted.")),
      refused(all.GetCounter("quarry_nbd_connections_refused_total",
                             "NBD connections turned away because there were too many.")),
      dropped_handshakes(
          all.GetCounter("quarry_nbd_handshakes_dropped_total",
                         "NBD handshakes closed to make room because there were too many.")),
      handshakes_failed(all.GetCounter("quarry_nbd_handshakes_failed_total",
                                       "NBD connections that ended before they reached a volume.")),
      timed_out(all.GetCounter("quarry_nbd_requests_timed_out_total",
                               "Requests answered with an error because the back end hung.")),
      late(all.GetCounter("quarry_nbd_requests_late_total",
                          "Requests that ended after they had been answered with an error.")),
      revoked_connections(all.GetCounter("quarry_nbd_connections_revoked_total",
                                         "NBD connections cut because their export was revoked.")),
      stalled_connections(
          all.GetCounter("quarry_nbd_connections_stalled_total",
                         "NBD connections cut because the client was too slow to take its answers "
                         "or to send its data.")),
      memory_bytes(
          all.GetGauge("quarry_nbd_memory_bytes", "Memory of NBD requests on their way, sampled.")),
      memory_waits(all.GetCounter("quarry_nbd_memory_waits_total",
                                  "Times that a request waited for memory of all NBD clients.")) {}

VolumeMetrics::VolumeMetrics(base::Metrics& all, const std::string& volume_id)
    : reads(all.ShareCounter("quarry_nbd_requests_total", "Requests to a volume.",
                             {{"volume", volume_id}, {"kind", "read"}})),
      writes(all.ShareCounter("quarry_nbd_requests_total", "Requests to a volume.",
                              {{"volume", volume_id}, {"kind", "write"}})),
      others(all.ShareCounter("quarry_nbd_requests_total", "Requests to a volume.",
                              {{"volume", volume_id}, {"kind", "other"}})),
      errors(all.ShareCounter("quarry_nbd_request_errors_total", "Requests answered with an error.",
                              {{"volume", volume_id}})),
      read_bytes(all.ShareCounter("quarry_nbd_read_bytes_total", "Bytes read from a volume.",
                                  {{"volume", volume_id}})),
      written_bytes(all.ShareCounter("quarry_nbd_written_bytes_total", "Bytes written to a volume.",
                                     {{"volume", volume_id}})),
      waited_seconds(all.ShareHistogram("quarry_nbd_waited_request_seconds",
                                        "How long requests took that could not be served at once.",
                                        base::DurationBuckets(), {{"volume", volume_id}})) {}

void Tally::Count(Command command, uint32_t length, WireError error) {
  const bool good = error == WireError::kOk;
  if (!good) ++errors;
  if (command == Command::kRead) {
    ++reads;
    if (good) read_bytes += length;
  } else if (command == Command::kWrite) {
    ++writes;
    if (good) written_bytes += length;
  } else {
    ++others;
  }
}

void Tally::MoveTo(VolumeMetrics& metrics) {
  const auto move = [](uint64_t& from, const std::shared_ptr<base::Counter>& to) {
    if (from > 0) to->Add(static_cast<double>(from));
    from = 0;
  };
  move(reads, metrics.reads);
  move(writes, metrics.writes);
  move(others, metrics.others);
  move(errors, metrics.errors);
  move(read_bytes, metrics.read_bytes);
  move(written_bytes, metrics.written_bytes);
}

}  // namespace blockd::nbd
