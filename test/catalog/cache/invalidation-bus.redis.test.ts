/** The bus over a real Redis. */
import { busConformance } from "./bus-conformance.ts";

busConformance("redis");
