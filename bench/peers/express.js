// Express and ioredis, with checks by hand.

import express from 'express';
import { admit, heartbeat, heartbeats } from './streams.js';

const USER_ID = /^[A-Za-z0-9._~@|:+=-]{1,128}$/;
const STREAM_ID = /^[1-9][0-9]?\.[A-Za-z0-9_-]{19}\.[A-Za-z0-9_-]{16}$/;
const FIELDS = new Set(['device_id', 'device_name', 'content_id']);

const isText = (value) => typeof value === 'string' && value.length >= 1 && value.length <= 64;
const isRequest = (body) => Object.entries(body).every(([name, value]) => FIELDS.has(name) && isText(value));
const isStream = (one) => USER_ID.test(one?.user_id) && STREAM_ID.test(one?.stream_id);

const app = express();
app.use(express.json({ limit: '512kb' }));

app.post('/v1/users/:userId/streams', async (request, response) => {
  const { userId } = request.params;
  if (!USER_ID.test(userId) || !isRequest(request.body ?? {})) {
    response.status(422).json({ detail: 'invalid' });
    return;
  }
  const admitted = await admit(userId, request.body ?? {});
  if (!admitted) response.status(409).json({ detail: 'limit reached' });
  else response.status(201).set('Cache-Control', 'no-store').json(admitted);
});

app.post('/v1/users/:userId/streams/:streamId/heartbeat', async (request, response) => {
  const { userId, streamId } = request.params;
  if (!USER_ID.test(userId) || !STREAM_ID.test(streamId)) {
    response.status(404).json({ detail: 'unknown' });
    return;
  }
  const kept = await heartbeat(userId, streamId);
  if (!kept) response.status(410).json({ detail: 'the stream has ended' });
  else response.set('Cache-Control', 'no-store').json(kept);
});

app.post('/v1/heartbeats', async (request, response) => {
  const streams = request.body?.streams;
  if (!Array.isArray(streams) || streams.length > 1000 || !streams.every(isStream)) {
    response.status(422).json({ detail: 'invalid' });
    return;
  }
  response.json({ streams: await heartbeats(streams) });
});

app.listen(Number(process.env.PORT), '127.0.0.1', 2048);
