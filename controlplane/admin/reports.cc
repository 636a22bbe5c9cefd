#include "controlplane/admin/reports.h"

#include <string_view>

#include <fmt/format.h>

#include "base/config.h"

namespace controlplane::admin {
namespace {

using base::Json;
using base::JsonArray;
using base::JsonObject;

uint64_t Number(const Json& report, std::string_view key) {
  return base::FindUint(report, key).value_or(0);
}

std::string Size(const Json& report, std::string_view key) {
  return base::FormatBytes(Number(report, key));
}

bool Flag(const Json& report, std::string_view key) {
  const Json* value = base::Find(report, key);
  return value != nullptr && value->is_bool() && value->get_bool();
}

// "2.41 x", or "-" where there is nothing to divide.
std::string Ratio(uint64_t whole, uint64_t part) {
  if (part == 0) return "-";
  return fmt::format("{:.2f} x", static_cast<double>(whole) / static_cast<double>(part));
}

JsonArray Strings(const std::vector<std::string>& values) {
  JsonArray array;
  for (const std::string& value : values) array.emplace_back(value);
  return array;
}

std::string Joined(const Json* array) {
  std::string text;
  if (array == nullptr || !array->is_array()) return text;
  for (const Json& value : array->as_array()) {
    if (!value.is_string()) continue;
    if (!text.empty()) text += ", ";
    text += base::View(value.get_string());
  }
  return text;
}

}  // namespace

Json ToJson(const chunkstore::CollectReport& report) {
  return JsonObject{{"abandoned_ingests", report.abandoned_ingests},
                    {"removed_chunks", report.removed_chunks},
                    {"removed_pages", report.removed_pages},
                    {"removed_orphans", report.removed_orphans},
                    {"freed_bytes", report.freed_bytes}};
}

Json ToJson(const chunkstore::ScrubReport& report) {
  JsonArray findings;
  for (const auto& finding : report.findings) {
    findings.push_back(JsonObject{{"id", finding.id},
                                  {"blob", finding.blob},
                                  {"problem", finding.problem},
                                  {"holders", Strings(finding.holders)},
                                  {"repaired", finding.repaired}});
  }
  return JsonObject{
      {"checked_blobs", report.checked_blobs},         {"checked_bytes", report.checked_bytes},
      {"finding_count", report.finding_count},         {"findings", std::move(findings)},
      {"leaked_references", report.leaked_references}, {"orphan_blobs", report.orphan_blobs}};
}

Json ToJson(const chunkstore::RebuildReport& report) {
  return JsonObject{{"blobs", report.blobs},
                    {"chunks", report.chunks},
                    {"pages", report.pages},
                    {"bad_blobs", report.bad_blobs},
                    {"holders", Strings(report.holders)}};
}

Json ToJson(const chunkstore::StoreStats& stats) {
  return JsonObject{{"logical_bytes", stats.logical_bytes},
                    {"nonzero_bytes", stats.nonzero_bytes},
                    {"unique_bytes", stats.unique_bytes},
                    {"compressed_bytes", stats.compressed_bytes},
                    {"physical_bytes", stats.physical_bytes},
                    {"garbage_bytes", stats.garbage_bytes},
                    {"chunks", stats.chunks},
                    {"holders", stats.holders}};
}

Json ToJson(const chunkstore::HolderStats& stats) {
  return JsonObject{{"logical_bytes", stats.logical_bytes},
                    {"nonzero_bytes", stats.nonzero_bytes},
                    {"unique_bytes", stats.unique_bytes},
                    {"unique_compressed_bytes", stats.unique_compressed_bytes},
                    {"shared_bytes", stats.shared_bytes},
                    {"shared_with", Strings(stats.shared_with)}};
}

std::string DescribeCollect(const Json& report) {
  return fmt::format(
      "freed {}: {} chunks, {} map pages, {} orphaned blobs; {} abandoned uploads rolled back\n",
      Size(report, "freed_bytes"), Number(report, "removed_chunks"),
      Number(report, "removed_pages"), Number(report, "removed_orphans"),
      Number(report, "abandoned_ingests"));
}

std::string DescribeScrub(const Json& report) {
  std::string text;
  const Json* findings = base::Find(report, "findings");
  if (findings != nullptr && findings->is_array()) {
    for (const Json& finding : findings->as_array()) {
      text += fmt::format("{}  {}\n  blob: {}\n  touches: {}\n",
                          Flag(finding, "repaired") ? "repaired" : "CORRUPT ",
                          base::FindString(finding, "problem").value_or(""),
                          base::FindString(finding, "blob").value_or(""),
                          Joined(base::Find(finding, "holders")));
    }
  }
  text +=
      fmt::format("checked {} blobs, {}: {} problems, {} leaked references, {} orphaned blobs\n",
                  Number(report, "checked_blobs"), Size(report, "checked_bytes"),
                  Number(report, "finding_count"), Number(report, "leaked_references"),
                  Number(report, "orphan_blobs"));
  return text;
}

namespace {

// To whom the images belong now. That the projects are still there is not known here.
std::string DescribeOwners(const Json* owners) {
  if (owners == nullptr || !owners->is_object() || owners->as_object().empty()) return {};
  std::string text = "they are owned by\n";
  for (const auto& [project, count] : owners->as_object()) {
    const std::string images = count.is_number() ? base::ToText(count) : "?";
    text += fmt::format("  {:34} {} images\n",
                        project.empty() ? "nobody" : "project " + std::string(base::View(project)),
                        images);
  }
  return text +
         "Projects and users are not in the blobs. Where one of these is gone, only admins see "
         "its\n"
         "images; they give them to another: openstack image set --project PROJECT IMAGE\n";
}

}  // namespace

std::string DescribeRebuild(const Json& report) {
  std::string text = fmt::format(
      "rebuilt the index from {} blobs: {} chunks, {} map pages, {} unreadable\n"
      "found again: {}\n"
      "image records made again: {}\n",
      Number(report, "blobs"), Number(report, "chunks"), Number(report, "pages"),
      Number(report, "bad_blobs"), Joined(base::Find(report, "holders")),
      Joined(base::Find(report, "images")));
  if (const std::string skipped = Joined(base::Find(report, "skipped")); !skipped.empty()) {
    text += "left without a record: " + skipped + "\n";
  }
  return text + DescribeOwners(base::Find(report, "owners"));
}

std::string DescribeStats(const Json& stats) {
  const uint64_t nonzero = Number(stats, "nonzero_bytes");
  const uint64_t unique = Number(stats, "unique_bytes");
  const uint64_t compressed = Number(stats, "compressed_bytes");
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value, std::string_view remark) {
    text += fmt::format("{:<12}{:>12}  {}\n", name, value, remark);
  };
  line("logical", Size(stats, "logical_bytes"), "what images and snapshots hold, holes and all");
  line("non-zero", Size(stats, "nonzero_bytes"), "the same without holes");
  line("unique", Size(stats, "unique_bytes"), "each chunk counted once");
  line("compressed", Size(stats, "compressed_bytes"), "as stored");
  line("physical", Size(stats, "physical_bytes"), "on disk, with maps and manifests");
  line("garbage", Size(stats, "garbage_bytes"), "waiting for the collector");
  line("dedup", Ratio(nonzero, unique), "non-zero / unique");
  line("compression", Ratio(unique, compressed), "unique / compressed");
  line("chunks", fmt::format("{}", Number(stats, "chunks")), "");
  line("holders", fmt::format("{}", Number(stats, "holders")), "images, snapshots, uploads");
  return text;
}

std::string DescribeHolderStats(const Json& stats) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value, std::string_view remark) {
    text += fmt::format("{:<12}{:>12}  {}\n", name, value, remark);
  };
  line("logical", Size(stats, "logical_bytes"), "");
  line("non-zero", Size(stats, "nonzero_bytes"), "without holes");
  line(
      "unique", Size(stats, "unique_bytes"),
      fmt::format("would be freed with it ({} as stored)", Size(stats, "unique_compressed_bytes")));
  const Json* others = base::Find(stats, "shared_with");
  const size_t count = others != nullptr && others->is_array() ? others->as_array().size() : 0;
  line("shared", Size(stats, "shared_bytes"),
       count == 0 ? "in no other"
                  : fmt::format("also in {} other{}:", count, count == 1 ? "" : "s"));
  for (size_t i = 0; i < count; ++i) {
    const Json& other = others->as_array()[i];
    text += fmt::format("{:26}{}\n", "", other.is_string() ? base::View(other.get_string()) : "");
  }
  return text;
}

}  // namespace controlplane::admin
