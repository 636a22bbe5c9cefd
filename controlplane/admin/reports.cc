#include "controlplane/admin/reports.h"

#include <algorithm>
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

// "1 map page", "2 map pages".
std::string Count(uint64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}
std::string Count(const Json& report, std::string_view key, std::string_view noun) {
  return Count(Number(report, key), noun);
}

// Each string of the array on a line of its own, below one another; no more than kMaxLines.
constexpr size_t kMaxLines = 50;
std::string Lines(const Json* array, std::string_view indent) {
  std::string text;
  if (array == nullptr || !array->is_array()) return text;
  const JsonArray& values = array->as_array();
  for (size_t i = 0; i < std::min(values.size(), kMaxLines); ++i) {
    if (values[i].is_string())
      text += fmt::format("{}{}\n", indent, base::View(values[i].get_string()));
  }
  if (values.size() > kMaxLines)
    text += fmt::format("{}and {} more; --json has all\n", indent, values.size() - kMaxLines);
  return text;
}

size_t SizeOf(const Json* array) {
  return array != nullptr && array->is_array() ? array->as_array().size() : 0;
}

}  // namespace

Json ToJson(const chunkstore::CollectReport& report) {
  return JsonObject{
      {"abandoned_ingests", report.abandoned_ingests}, {"removed_chunks", report.removed_chunks},
      {"removed_pages", report.removed_pages},         {"removed_orphans", report.removed_orphans},
      {"compacted_chunks", report.compacted_chunks},   {"freed_bytes", report.freed_bytes}};
}

Json ToJson(const chunkstore::ScrubReport& report) {
  JsonArray findings;
  for (const auto& finding : report.findings) {
    findings.push_back(JsonObject{{"id", finding.id},
                                  {"blob", finding.blob},
                                  {"problem", finding.problem},
                                  {"holders", Strings(finding.holders)},
                                  {"repaired", finding.repaired},
                                  {"set_aside", finding.set_aside}});
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
                    {"borrowed_bytes", stats.borrowed_bytes},
                    {"compressed_bytes", stats.compressed_bytes},
                    {"lender_bytes", stats.lender_bytes},
                    {"physical_bytes", stats.physical_bytes},
                    {"garbage_bytes", stats.garbage_bytes},
                    {"chunks", stats.chunks},
                    {"holders", stats.holders}};
}

Json ToJson(const chunkstore::HolderStats& stats) {
  return JsonObject{{"logical_bytes", stats.logical_bytes},
                    {"nonzero_bytes", stats.nonzero_bytes},
                    {"unique_bytes", stats.unique_bytes},
                    {"unique_borrowed_bytes", stats.unique_borrowed_bytes},
                    {"unique_compressed_bytes", stats.unique_compressed_bytes},
                    {"shared_bytes", stats.shared_bytes},
                    {"shared_with", Strings(stats.shared_with)}};
}

std::string DescribeCollect(const Json& report) {
  return fmt::format(
      "freed {}: {}, {}, {}, {} compacted; {} rolled back\n", Size(report, "freed_bytes"),
      Count(report, "removed_chunks", "chunk"), Count(report, "removed_pages", "map page"),
      Count(report, "removed_orphans", "orphaned blob"), Count(report, "compacted_chunks", "chunk"),
      Count(report, "abandoned_ingests", "abandoned upload"));
}

namespace {

// What becomes of a finding.
enum class Fate { kRepaired, kSetAside, kCorrupt, kIndex };

Fate FateOf(const Json& finding) {
  if (base::FindString(finding, "id").value_or("").empty()) return Fate::kIndex;
  if (Flag(finding, "repaired")) return Fate::kRepaired;
  return Flag(finding, "set_aside") ? Fate::kSetAside : Fate::kCorrupt;
}

std::string DescribeFinding(const Json& finding, Fate fate) {
  constexpr std::string_view kMarks[] = {"repaired ", "set aside", "CORRUPT  ", "CORRUPT  "};
  std::string text = fmt::format("{}  {}\n", kMarks[static_cast<size_t>(fate)],
                                 base::FindString(finding, "problem").value_or(""));
  const std::string blob = base::FindString(finding, "blob").value_or("");
  if (!blob.empty()) text += fmt::format("  blob: {}\n", blob);
  const Json* holders = base::Find(finding, "holders");
  if (SizeOf(holders) > 0) text += "  touches:\n" + Lines(holders, "    ");
  return text;
}

}  // namespace

std::string DescribeScrub(const Json& report) {
  std::string text;
  bool of_fate[4] = {};
  const Json* findings = base::Find(report, "findings");
  for (size_t i = 0; i < SizeOf(findings); ++i) {
    const Json& finding = findings->as_array()[i];
    const Fate fate = FateOf(finding);
    of_fate[static_cast<size_t>(fate)] = true;
    text += DescribeFinding(finding, fate);
  }
  text += fmt::format("checked {}, {}: {}, {}, {}\n", Count(report, "checked_blobs", "blob"),
                      Size(report, "checked_bytes"), Count(report, "finding_count", "problem"),
                      Count(report, "leaked_references", "leaked reference"),
                      Count(report, "orphan_blobs", "orphaned blob"));
  if (of_fate[static_cast<size_t>(Fate::kIndex)]) {
    return text +
           "The index is damaged: stop the service, if one runs, and run `quarry fsck "
           "--rebuild-index`,\nwhich makes it again from the blobs; then scrub again.\n";
  }
  if (of_fate[static_cast<size_t>(Fate::kCorrupt)])
    text += "To set aside what is corrupt, so that it can be healed: quarry scrub --repair\n";
  if (of_fate[static_cast<size_t>(Fate::kSetAside)]) {
    text +=
        "What is set aside heals as soon as the same bytes are uploaded again: "
        "quarry image push --again FILE\n";
  }
  return text;
}

namespace {

// To whom the images belong now. That the projects are still there is not known here.
std::string DescribeOwners(const Json* owners) {
  if (owners == nullptr || !owners->is_object() || owners->as_object().empty()) return {};
  std::string text = "they are owned by\n";
  for (const auto& [project, count] : owners->as_object()) {
    text += fmt::format("  {:34} {}\n",
                        project.empty() ? "nobody" : "project " + std::string(base::View(project)),
                        Count(count.is_number() ? count.to_number<uint64_t>() : 0, "image"));
  }
  return text +
         "Projects and users are not in the blobs. Where one of these is gone, only admins see "
         "its\n"
         "images; they give them to another: openstack image set --project PROJECT IMAGE\n";
}

}  // namespace

std::string DescribeRebuild(const Json& report) {
  const Json* images = base::Find(report, "images");
  const Json* skipped = base::Find(report, "skipped");
  std::string text;
  const std::string aside = base::FindString(report, "set_aside").value_or("");
  if (!aside.empty()) {
    text += fmt::format(
        "the old index could not be read; it is set aside as {}\n"
        "Users, projects and whatever else was not in the blobs were in it: the next start of the\n"
        "service makes the admin of clouds.yaml again.\n",
        aside);
  }
  text += fmt::format("rebuilt the index from {}: {}, {}, {} unreadable\n",
                      Count(report, "blobs", "blob"), Count(report, "chunks", "chunk"),
                      Count(report, "pages", "map page"), Number(report, "bad_blobs"));
  text += fmt::format("found {} again; made {} again{}\n",
                      Count(SizeOf(base::Find(report, "holders")), "stored content"),
                      Count(SizeOf(images), "image record"), SizeOf(images) > 0 ? ":" : "");
  text += Lines(images, "  ");
  if (SizeOf(skipped) > 0) text += "left without a record:\n" + Lines(skipped, "  ");
  const std::string volumes = base::FindString(report, "volumes_set_aside").value_or("");
  const uint64_t sealed = Number(report, "lost_volume_layers");
  if (!volumes.empty() || sealed > 0) {
    text += "Volumes and snapshots can't be made again: their records were in the index alone.\n";
    if (!volumes.empty())
      text += fmt::format("  what was written to them is kept in {}\n", volumes);
    if (sealed > 0)
      text += fmt::format("  {} are kept in the store under holders lost/...\n",
                          Count(sealed, "sealed layer"));
  }
  return text + DescribeOwners(base::Find(report, "owners"));
}

std::string DescribeStats(const Json& stats) {
  const uint64_t nonzero = Number(stats, "nonzero_bytes");
  const uint64_t unique = Number(stats, "unique_bytes");
  const uint64_t own = unique - std::min(unique, Number(stats, "borrowed_bytes"));
  const uint64_t compressed = Number(stats, "compressed_bytes");
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value, std::string_view remark) {
    text += fmt::format("{:<12}{:>12}  {}\n", name, value, remark);
  };
  line("logical", Size(stats, "logical_bytes"), "what images and snapshots hold, holes and all");
  line("non-zero", Size(stats, "nonzero_bytes"), "the same without holes");
  line("unique", Size(stats, "unique_bytes"), "each chunk counted once");
  line("new blocks", base::FormatBytes(own), "of those, what no other chunk has");
  line("compressed", Size(stats, "compressed_bytes"), "as stored");
  line("physical", Size(stats, "physical_bytes"), "on disk, with maps and manifests");
  line("garbage", Size(stats, "garbage_bytes"), "waiting for the collector");
  line("lent alone", Size(stats, "lender_bytes"),
       "of the physical bytes: kept for blocks that other chunks share");
  line("chunk dedup", Ratio(nonzero, unique), "non-zero / unique");
  line("block dedup", Ratio(unique, own), "unique / new blocks");
  line("compression", Ratio(own, compressed), "new blocks / compressed");
  line("chunks", fmt::format("{}", Number(stats, "chunks")), "");
  line("holders", fmt::format("{}", Number(stats, "holders")),
       "images, uploads, layers of volumes");
  return text;
}

std::string DescribeHolderStats(const Json& stats) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value, std::string_view remark) {
    text += fmt::format("{:<12}{:>12}  {}\n", name, value, remark);
  };
  line("logical", Size(stats, "logical_bytes"), "");
  line("non-zero", Size(stats, "nonzero_bytes"), "without holes");
  line("unique", Size(stats, "unique_bytes"),
       fmt::format("in chunks of its own; {} of that in blocks of others, the rest {} as stored",
                   Size(stats, "unique_borrowed_bytes"), Size(stats, "unique_compressed_bytes")));
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
