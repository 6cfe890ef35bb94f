/** What a process counts about its fills, for the metrics. */
export interface FillStats {
  started: number;
  completed: number;
  failed: number;
  mismatches: number;
  joined: number;
  followed: number;
  takenOver: number;
  upstreamBytes: number;
  aheadBytes: number;
  aheadRequests: number;
  /** Reads that went past the cache because there was no room to stage. */
  unstaged: number;
  /** Fills that were stopped because no client waited for them any more. */
  unread: number;
  secondsSum: number;
}

export function noFills(): FillStats {
  return {
    started: 0,
    completed: 0,
    failed: 0,
    mismatches: 0,
    joined: 0,
    followed: 0,
    takenOver: 0,
    upstreamBytes: 0,
    aheadBytes: 0,
    aheadRequests: 0,
    unstaged: 0,
    unread: 0,
    secondsSum: 0,
  };
}
