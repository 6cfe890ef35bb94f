/** Every task queue name, in one pure file. */
export const taskQueues = {
  maintenance: "maintenance",
  replication: "replication",
  replicationCopy: "replication-copy",
  refresh: "execution-refresh",
  tuf: "tuf",
} as const;
