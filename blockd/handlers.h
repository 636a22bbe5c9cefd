#pragma once

#include "blockd/context.h"

// The routes of this folder, one function a file (handlers_*.cc). Those of blockd/types and
// blockd/api are handed to the service beside them.

namespace blockd {

void AppendVolumeRoutes(const Context& context, Routes* routes);      // volumes and their metadata
void AppendActionRoutes(const Context& context, Routes* routes);      // volumes/{id}/action
void AppendSnapshotRoutes(const Context& context, Routes* routes);    // snapshots
void AppendAttachmentRoutes(const Context& context, Routes* routes);  // attachments
void AppendBackupRoutes(const Context& context, Routes* routes);      // backups
void AppendProjectQosRoutes(const Context& context, Routes* routes);  // limits of projects

}  // namespace blockd
