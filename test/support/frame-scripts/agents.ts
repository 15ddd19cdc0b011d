import type { Test } from 'tap'
import { build } from '../harness.js'
import { FrameRecorder, recordedOptions } from '../frame-recorder.js'
import { recordAuthentication } from './agents-auth.js'
import { recordChannels } from './agents-channels.js'
import { recordDirect } from './agents-direct.js'

export async function recordAgents (t: Test) {
  const registry = await build(t, recordedOptions)
  const recorder = new FrameRecorder(registry)
  await recordAuthentication(t, recorder, registry)
  await recordChannels(t, recorder, registry)
  await recordDirect(recorder, registry)
  t.same(await recorder.unsent('agents'), [], 'every client frame type was sent')
  return await recorder.finish()
}
