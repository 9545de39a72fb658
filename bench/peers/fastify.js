// Fastify and ioredis, with schemas for what comes in and goes out, as its documentation advises.

import Fastify from 'fastify';
import { admit, heartbeat, heartbeats } from './streams.js';

const text = { type: 'string', minLength: 1, maxLength: 64 };
const nullableText = { type: ['string', 'null'] };
const params = {
  type: 'object',
  properties: {
    userId: { type: 'string', pattern: '^[A-Za-z0-9._~@|:+=-]{1,128}$' },
    streamId: { type: 'string', pattern: '^[1-9][0-9]?\\.[A-Za-z0-9_-]{19}\\.[A-Za-z0-9_-]{16}$' },
  },
};
const lease = {
  stream_id: { type: 'string' },
  expires_at: { type: 'string' },
  ttl_seconds: { type: 'integer' },
  heartbeat_seconds: { type: 'number' },
};
const admission = {
  stream_ref: { type: 'string' }, user_id: { type: 'string' }, seat: { type: 'integer' },
  device_id: nullableText, device_name: nullableText, content_id: nullableText,
  started_at: { type: 'string' }, live: { type: 'integer' }, limit: { type: 'integer' }, ...lease,
};
const request = {
  type: 'object', additionalProperties: false,
  properties: { device_id: text, device_name: text, content_id: text },
};
const batch = {
  type: 'object', required: ['streams'],
  properties: {
    streams: {
      type: 'array', maxItems: 1000,
      items: {
        type: 'object', required: ['user_id', 'stream_id'],
        properties: { user_id: { type: 'string' }, stream_id: { type: 'string' } },
      },
    },
  },
};
const answers = (status, properties) => ({ [status]: { type: 'object', properties } });

const app = Fastify();

app.post('/v1/users/:userId/streams', { schema: { params, body: request, response: answers(201, admission) } },
  async ({ params: { userId }, body }, reply) => {
    const admitted = await admit(userId, body);
    if (!admitted) return reply.code(409).send({ detail: 'limit reached' });
    return reply.code(201).header('cache-control', 'no-store').send(admitted);
  });

app.post('/v1/users/:userId/streams/:streamId/heartbeat', { schema: { params, response: answers(200, lease) } },
  async ({ params: { userId, streamId } }, reply) => {
    const kept = await heartbeat(userId, streamId);
    if (!kept) return reply.code(410).send({ detail: 'the stream has ended' });
    return reply.header('cache-control', 'no-store').send(kept);
  });

const leases = { streams: { type: 'array', items: { type: 'object', nullable: true, properties: lease } } };
app.post('/v1/heartbeats', { schema: { body: batch, response: answers(200, leases) } },
  async ({ body }) => ({ streams: await heartbeats(body.streams) }));

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 2048 });
