/** What a blob store is opened with; the shape that the configuration hands over. */
export interface FsStorageConfig {
  readonly driver: "fs";
  readonly root: string;
}

export interface S3StorageConfig {
  readonly driver: "s3";
  readonly bucket: string;
  /** Put before every key; a missing slash at its end is added. */
  readonly prefix: string;
  readonly region: string;
  /** Null: the AWS endpoint of the region. */
  readonly endpoint: string | null;
  readonly pathStyle: boolean;
  /** Null: the default credential chain of the SDK. */
  readonly accessKeyId: string | null;
  readonly secretAccessKey: string | null;
  readonly redirect: boolean;
  /** Where clients reach the bucket, when that is not `endpoint`. */
  readonly publicEndpoint: string | null;
  readonly limits?: Partial<S3Limits>;
}

export type StorageConfig = FsStorageConfig | S3StorageConfig;

export interface S3Limits {
  /** Memory of one running append; S3 refuses parts under 5 MiB except the last. */
  readonly partBytes: number;
  /** A segment with this many parts is sealed and the append goes on in the next one. */
  readonly partsPerSegment: number;
  /** Larger objects are copied in pieces; S3 copies at most 5 GiB at once. */
  readonly copyBytes: number;
  readonly copyParallel: number;
  /** Running appends in a process: this times `partBytes` bounds the memory for uploads. */
  readonly appends: number;
  /** An append that finds no free place in this time is refused with OVERLOADED. */
  readonly appendWaitMs: number;
  readonly attempts: number;
  readonly connectMs: number;
  /** From the start of a request to the head of its answer. */
  readonly answerMs: number;
  /** Server-side copies move gigabytes before they answer. */
  readonly copyAnswerMs: number;
  /** The longest silence in the body of an answer while its reader waits. */
  readonly idleMs: number;
  readonly sockets: number;
  readonly redirectSeconds: number;
}

const MIB = 1024 * 1024;

export const S3_LIMITS: S3Limits = {
  partBytes: 5 * MIB,
  partsPerSegment: 9_900,
  copyBytes: 1024 * MIB,
  copyParallel: 4,
  appends: 64,
  appendWaitMs: 30_000,
  attempts: 3,
  connectMs: 5_000,
  answerMs: 60_000,
  copyAnswerMs: 600_000,
  idleMs: 30_000,
  sockets: 256,
  redirectSeconds: 600,
};
