#include <string>
#include <vector>

#include "controlplane/cli/command.h"

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  return controlplane::cli::Run(args);
}
