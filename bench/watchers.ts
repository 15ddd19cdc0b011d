// Many watchers in one process, which reports when all of them have received a change.
import { WebSocket } from 'ws'

const [port, count] = process.argv.slice(2).map(Number)
let ready = 0
let received = 0

function connect () {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/public/ws`)
  socket.on('open', () => socket.send('{"type":"watch"}'))
  socket.on('message', data => {
    const text = data.toString()
    if (text.startsWith('{"type":"ack"') && ++ready === count) process.send!('ready')
    if (text.startsWith('{"type":"agents_delta"') && ++received % count! === 0) process.send!(performance.timeOrigin + performance.now())
  })
}

for (let index = 0; index < count!; index++) connect()
