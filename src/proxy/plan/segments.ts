/**
 * Which parts of a growing file are there. Parallel ranges arrive out of order; readers may only see what is contiguous from their own
 * position, and a resumed fill asks only for the gaps.
 */
export interface Segment {
  /** First byte. */
  readonly start: number;
  /** One past the last byte. */
  readonly end: number;
}

export class SegmentMap {
  /** Sorted, disjoint, never touching. */
  #segments: Segment[] = [];

  constructor(segments: readonly Segment[] = []) {
    for (const segment of segments) this.add(segment.start, segment.end);
  }

  add(start: number, end: number): void {
    if (end <= start) return;
    const last = this.#segments.at(-1);
    // What nearly always comes is the continuation of the last one.
    if (last !== undefined && start === last.end) {
      this.#segments = [...this.#segments.slice(0, -1), { start: last.start, end }];
      return;
    }
    let from = start;
    let to = end;
    const kept: Segment[] = [];
    for (const segment of this.#segments) {
      if (segment.end < from || segment.start > to) {
        kept.push(segment);
      } else {
        from = Math.min(from, segment.start);
        to = Math.max(to, segment.end);
      }
    }
    kept.push({ start: from, end: to });
    this.#segments = kept.toSorted((a, b) => a.start - b.start);
  }

  /** One past the last byte that is there without a gap from the position; the position itself when nothing is. */
  contiguousFrom(position: number): number {
    for (const segment of this.#segments) {
      if (segment.start <= position && position < segment.end) return segment.end;
    }
    return position;
  }

  gaps(size: number): Segment[] {
    const gaps: Segment[] = [];
    let position = 0;
    for (const segment of this.#segments) {
      if (segment.start >= size) break;
      if (segment.start > position) gaps.push({ start: position, end: segment.start });
      position = segment.end;
    }
    if (position < size) gaps.push({ start: position, end: size });
    return gaps;
  }

  clear(): void {
    this.#segments = [];
  }

  get bytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.end - segment.start, 0);
  }

  list(): readonly Segment[] {
    return this.#segments;
  }
}

/** Splits what is missing into ranges for parallel fetching, in order, none larger than the part size. */
export function planRanges(gaps: readonly Segment[], partBytes: number): Segment[] {
  const ranges: Segment[] = [];
  for (const gap of gaps) {
    for (let start = gap.start; start < gap.end; start += partBytes) {
      ranges.push({ start, end: Math.min(gap.end, start + partBytes) });
    }
  }
  return ranges;
}
