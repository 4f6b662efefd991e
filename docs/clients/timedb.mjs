// Reads and uploads over Arrow Flight, with @grpc/grpc-js and apache-arrow alone.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { MessageReader, tableFromIPC, tableToIPC } from "apache-arrow";

const types = loader.loadSync(new URL("flight.proto", import.meta.url).pathname, { keepCase: true });
const { FlightService } = grpc.loadPackageDefinition(types).arrow.flight.protocol;

// A stream of FlightData is a stream of Arrow IPC: a marker, the header's length, the header, the body.
function framed({ data_header, data_body }) {
  const padded = (data_header.length + 7) & ~7;
  const head = Buffer.alloc(8 + padded);
  head.writeInt32LE(-1, 0);
  head.writeInt32LE(padded, 4);
  data_header.copy(head, 8);
  return Buffer.concat([head, data_body ?? Buffer.alloc(0)]);
}

// A table as messages, each of its batches after the dictionaries that it changes; the first names the command.
function send(call, table, command) {
  const ipc = Buffer.from(tableToIPC(table, "stream"));
  let named = { flight_descriptor: { type: 2, cmd: Buffer.from(JSON.stringify(command)) } };
  for (let at = 0; at + 8 <= ipc.length; ) {
    const start = at + 8 + ipc.readInt32LE(at + 4);
    if (start === at + 8) break; // the end of the stream
    const end = start + bodyLength(ipc.subarray(at, start));
    call.write({ data_header: ipc.subarray(at + 8, start), data_body: ipc.subarray(start, end), ...named });
    named = {};
    at = end;
  }
  call.end();
}

// A server or balancer that has gone silent is noticed: docs/operations.md says why no sooner.
const keepalive = { "grpc.keepalive_time_ms": 310_000, "grpc.keepalive_timeout_ms": 20_000 };

export class TimeDB {
  constructor(address, key, credentials = grpc.credentials.createInsecure(), options = {}) {
    this.client = new FlightService(address, credentials, { ...keepalive, ...options });
    this.headers = new grpc.Metadata();
    if (key) this.headers.set("x-api-key", key);
  }

  async table(ticket) {
    const pieces = [];
    for await (const data of this.client.doGet({ ticket }, this.headers)) {
      if (data.data_header.length) pieces.push(framed(data));
    }
    return tableFromIPC(Buffer.concat(pieces));
  }

  read(selection) {
    return this.table(Buffer.from(JSON.stringify({ op: "read", identifiers: "plain", ...selection })));
  }

  upload(table, command = {}) {
    const receipts = [];
    return new Promise((resolve, reject) => {
      const call = this.client.doPut(this.headers);
      call.on("data", ({ app_metadata }) => receipts.push(JSON.parse(app_metadata)));
      call.on("error", reject);
      call.on("end", () => resolve(receipts));
      send(call, table, { op: "upload", rows: table.numRows, ...command });
    });
  }

  // What was known of each row's series and valid_time, by its known_by.
  lookup(table, command = {}) {
    const pieces = [];
    return new Promise((resolve, reject) => {
      const call = this.client.doExchange(this.headers);
      call.on("data", (data) => data.data_header.length && pieces.push(framed(data)));
      call.on("error", reject);
      call.on("end", () => resolve(tableFromIPC(Buffer.concat(pieces))));
      send(call, table, { op: "lookup", ...command });
    });
  }

  // SQL, as Flight SQL has it: CommandStatementQuery in google.protobuf.Any.
  async sql(query) {
    const text = Buffer.from(query);
    const field = (tag, bytes) => Buffer.concat([Buffer.from([tag]), varint(bytes.length), bytes]);
    const any = Buffer.concat([
      field(0x0a, Buffer.from("type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery")),
      field(0x12, field(0x0a, text)),
    ]);
    const info = await new Promise((resolve, reject) =>
      this.client.getFlightInfo({ type: 2, cmd: any }, this.headers, (e, i) => (e ? reject(e) : resolve(i))));
    return this.table(info.endpoint[0].ticket.ticket);
  }

  close() {
    this.client.close();
  }
}

function varint(n) {
  const out = [];
  for (; n > 127; n >>>= 7) out.push((n & 127) | 128);
  return Buffer.from([...out, n]);
}

function bodyLength(framedHeader) {
  return new MessageReader(framedHeader).readMessage().bodyLength;
}
