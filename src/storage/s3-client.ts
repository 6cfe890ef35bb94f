/** The SDK's client with every wait and retry bounded. */
import { S3Client } from "@aws-sdk/client-s3";
import type { S3Limits, S3StorageConfig } from "./storage-config.ts";

export function createS3Client(config: S3StorageConfig, limits: S3Limits): S3Client {
  const { accessKeyId, secretAccessKey } = config;
  return new S3Client({
    region: config.region,
    forcePathStyle: config.pathStyle,
    maxAttempts: limits.attempts,
    // Services other than AWS stumble over checksums that they did not ask for; content has its digest.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    followRegionRedirects: false,
    requestHandler: {
      connectionTimeout: limits.connectMs,
      requestTimeout: limits.answerMs,
      throwOnRequestTimeout: true,
      // An idle socket is no fault while a slow client reads; bodies have a watch of their own.
      socketTimeout: 0,
      httpAgent: { keepAlive: true, maxSockets: limits.sockets },
      httpsAgent: { keepAlive: true, maxSockets: limits.sockets },
    },
    ...(config.endpoint === null ? {} : { endpoint: config.endpoint }),
    ...(accessKeyId !== null && secretAccessKey !== null ? { credentials: { accessKeyId, secretAccessKey } } : {}),
  });
}
