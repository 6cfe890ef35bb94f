-- Claims from many slots at once, urgent members first. What waited is found again by its producers: queues may be lost at any time.
TRUNCATE kv_queue;
ALTER TABLE kv_queue ADD COLUMN urgent boolean NOT NULL DEFAULT false;
DROP INDEX kv_queue_order;
CREATE INDEX kv_queue_order ON kv_queue (queue, slot, urgent DESC, marked_at);
