#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "controlplane/cli/command.h"

// The program by its name: as `quarry` it has every command; as one of the daemons it is
// `quarry serve` with that one's services.
int main(int argc, char** argv) {
  static const std::map<std::string, std::string> kDaemons = {
      {"imaged", "image"}, {"blockd", "volume"}, {"controlplane", "identity,admin"}};
  std::vector<std::string> args(argv + 1, argv + argc);
  const auto daemon = kDaemons.find(std::filesystem::path(argv[0]).filename().string());
  if (daemon != kDaemons.end())
    args.insert(args.begin(), {"serve", "--services=" + daemon->second});
  return controlplane::cli::Run(args);
}
