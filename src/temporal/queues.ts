/** Every task queue name, in one pure file. */
export const taskQueues = {
  maintenance: "maintenance",
  replication: "replication",
  replicationCopy: "replication-copy",
  refresh: "execution-refresh",
  tuf: "tuf",
} as const;

/** Of one process only. With its boot id: under a name that stays, the next process would get the tasks of the last. */
export function refreshInstanceQueue(host: string, bootId: string): string {
  return `${taskQueues.refresh}@${host}/${bootId}`;
}
