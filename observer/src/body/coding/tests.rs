use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};

use super::*;

/// A text in each coding, flushed after each of its parts, so that each can be told when it comes.
fn coded(parts: &[&[u8]]) -> Vec<(&'static [u8], Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 18);
    macro_rules! pieces {
        ($name:expr, $encoder:ident, $end:expr) => {{
            let mut pieces = Vec::new();
            let mut done = 0;
            for part in parts {
                $encoder.write_all(part).unwrap();
                $encoder.flush().unwrap();
                let written = $encoder.get_ref();
                pieces.push(written[done..].to_vec());
                done = written.len();
            }
            let whole: Vec<u8> = $end;
            pieces.push(whole[done..].to_vec());
            all.push(($name, pieces));
        }};
    }
    pieces!(&b"gzip"[..], gzip, gzip.finish().unwrap());
    pieces!(&b"deflate"[..], zlib, zlib.finish().unwrap());
    pieces!(&b"Deflate"[..], raw, raw.finish().unwrap());
    pieces!(&b"zstd"[..], zstd, zstd.finish().unwrap());
    pieces!(&b"br"[..], brotli, brotli.into_inner());
    all
}

fn content(decoder: &mut ContentDecoder, bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    assert_eq!(decoder.push(bytes, &mut |decoded| content.extend_from_slice(decoded)), None);
    content
}

#[test]
fn each_part_is_told_with_its_last_byte() {
    let long = b"0123456789 ".repeat(20_000);
    let parts: [&[u8]; 4] = [b"data: {\"a\":1}\n\n", b"data: {\"a\":2}\n\n", &long, b"data: [DONE]\n\n"];
    for (name, pieces) in coded(&parts) {
        let mut decoder = ContentDecoder::new(name).unwrap();
        for (piece, part) in pieces.iter().zip(parts) {
            let text = content(&mut decoder, piece);
            assert!(text == part, "{}: {} bytes", name.escape_ascii(), text.len());
        }
        assert_eq!(content(&mut decoder, &pieces[parts.len()]), b"");
        // Byte by byte it is the same.
        let mut decoder = ContentDecoder::new(name).unwrap();
        let text: Vec<u8> = pieces.concat().chunks(1).flat_map(|byte| content(&mut decoder, byte)).collect();
        assert!(text == parts.concat(), "{}", name.escape_ascii());
        assert!(decoder.held() < 10 << 20);
    }
}

#[test]
fn bombs_are_cut_off() {
    let zeros = vec![0; PUSH + (1 << 20)];
    for (name, pieces) in coded(&[&zeros]) {
        let mut decoder = ContentDecoder::new(name).unwrap();
        let mut decoded = 0;
        let defect = decoder.push(&pieces.concat(), &mut |content| decoded += content.len());
        assert_eq!(defect, Some(Defect::ContentTooLarge), "{}", name.escape_ascii());
        assert!(decoded <= PUSH + (64 << 10), "{decoded}");
        assert_eq!(content(&mut decoder, b"more"), b"");
    }
}

#[test]
fn noise_and_holes_end_it() {
    for (name, pieces) in coded(&[b"data: 1\n\n", b"data: 2\n\n"]) {
        let mut decoder = ContentDecoder::new(name).unwrap();
        let mut noise = pieces[0].clone();
        noise.extend([0xff; 300]);
        let mut told = Vec::new();
        let defect = decoder.push(&noise, &mut |content| told.extend_from_slice(content));
        assert_eq!(defect, Some(Defect::CodingMalformed), "{}", name.escape_ascii());
        let mut decoder = ContentDecoder::new(name).unwrap();
        content(&mut decoder, &pieces[0]);
        decoder.gap();
        assert_eq!(content(&mut decoder, &pieces[1]), b"");
    }
    assert!(ContentDecoder::new(b"compress").is_none());
}

#[test]
fn several_members_are_one_content() {
    let (name, pieces) = coded(&[b"one"]).swap_remove(0);
    let mut bytes = pieces.concat();
    bytes.extend(bytes.clone());
    assert_eq!(content(&mut ContentDecoder::new(name).unwrap(), &bytes), b"oneone");
}
